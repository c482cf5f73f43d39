//! The `tandem` program: everything it does is in the library of the same name.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use tandem::cli::{self, Cli};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(&Cli::parse(), &mut io::stdout(), &mut io::stderr())
}
