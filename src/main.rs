//! The command-line program; see `cigl --help`.

fn main() -> std::process::ExitCode {
    cigl::cli::main()
}
