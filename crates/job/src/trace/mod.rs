//! See the module that implements it.
