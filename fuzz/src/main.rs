//! libFuzzer around one of the targets: the one that `TANDEM_FUZZ_TARGET` names. One program, so that it is linked once.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tandem_fuzz::Target;

fn target() -> Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("TANDEM_FUZZ_TARGET").unwrap_or_default();
        let found = tandem_fuzz::TARGETS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("TANDEM_FUZZ_TARGET names no target: {name:?}")).1
    })
}

fuzz_target!(|data: &[u8]| target()(data));
