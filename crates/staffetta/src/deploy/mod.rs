//! `staffetta deploy`: environments from a file, made by CloudFormation.
