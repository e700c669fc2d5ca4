//! The `inarch` binary.

use std::process::ExitCode;

/// Training allocates and frees many large buffers; the system allocator returns each to the kernel.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    inarch::main()
}
