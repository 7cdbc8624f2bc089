//! The executable: everything is in the library. As an agent it never comes here.

fn main() -> std::process::ExitCode {
    remotely::command_line()
}
