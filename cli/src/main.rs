//! `tepui`, the operator's command.

use std::process::ExitCode;

// glibc's allocator keeps freed memory of many threads to itself; `tepui local` runs a
// whole cluster in this process.
fn main() -> ExitCode {
    tepui_cli::main()
}
