fn main() -> std::process::ExitCode {
    staffetta::cli::main()
}
