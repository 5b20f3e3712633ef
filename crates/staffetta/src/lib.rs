//! staffetta
