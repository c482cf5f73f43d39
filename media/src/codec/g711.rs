//! ITU-T G.711: µ-law and A-law, bit-exact with the ITU's own software library (G.191).
//!
//! Linear samples have 16 bits; µ-law uses the upper 14, A-law the upper 13 (12 and a sign).

/// The linear value of each µ-law code.
pub static ULAW: [i16; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = ulaw_value(code as u8);
        code += 1;
    }
    table
};

/// The linear value of each A-law code.
pub static ALAW: [i16; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = alaw_value(code as u8);
        code += 1;
    }
    table
};

const fn ulaw_value(code: u8) -> i16 {
    let bits = !code;
    let exponent = (bits >> 4) & 7;
    let mantissa = (bits & 0x0f) as i16;
    let magnitude = (((mantissa << 3) + 0x84) << exponent) - 0x84;
    if code & 0x80 == 0 { -magnitude } else { magnitude }
}

const fn alaw_value(code: u8) -> i16 {
    let bits = code ^ 0x55;
    let exponent = (bits >> 4) & 7;
    let step = ((bits & 0x0f) as i16) << 4;
    let magnitude = if exponent == 0 { step + 8 } else { (step + 0x108) << (exponent - 1) };
    if code & 0x80 == 0 { -magnitude } else { magnitude }
}

/// The µ-law code of a linear sample. Zero becomes 0xff, never 0x7f.
#[inline]
pub const fn ulaw_encode(sample: i16) -> u8 {
    let positive = sample >= 0;
    // The complement, not the negation: the library's decision values are not symmetrical around zero.
    let magnitude = ((if positive { sample } else { !sample }) >> 2) as u16 + 33;
    let magnitude = if magnitude > 0x1fff { 0x1fff } else { magnitude };
    // The bias makes bit 5 the lowest that can lead, so the leading bit alone names the segment.
    let segment = 10 - magnitude.leading_zeros();
    let mantissa = (magnitude >> (segment + 1)) & 0x0f;
    let code = !((segment << 4) as u8 | mantissa as u8);
    if positive { code } else { code & 0x7f }
}

/// The A-law code of a linear sample.
#[inline]
pub const fn alaw_encode(sample: i16) -> u8 {
    let positive = sample >= 0;
    let magnitude = ((if positive { sample } else { !sample }) >> 4) as u16;
    let code = if magnitude < 32 {
        magnitude as u8
    } else {
        let segment = 12 - magnitude.leading_zeros();
        (segment << 4) as u8 | ((magnitude >> (segment - 1)) & 0x0f) as u8
    };
    (if positive { code | 0x80 } else { code }) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ulaw_compress` of G.191, as the recommendation's library writes it.
    fn ulaw_of_the_library(sample: i16) -> u8 {
        let mut absno = if sample < 0 { (!sample >> 2) + 33 } else { (sample >> 2) + 33 };
        if absno > 0x1fff {
            absno = 0x1fff;
        }
        let mut i = absno >> 6;
        let mut segno = 1;
        while i != 0 {
            segno += 1;
            i >>= 1;
        }
        let high = 8 - segno;
        let low = 0x0f - ((absno >> segno) & 0x0f);
        let code = (high << 4) | low;
        (if sample >= 0 { code | 0x80 } else { code }) as u8
    }

    /// `alaw_compress` of G.191.
    fn alaw_of_the_library(sample: i16) -> u8 {
        let mut ix = if sample < 0 { !sample >> 4 } else { sample >> 4 };
        if ix > 15 {
            let mut exponent = 1;
            while ix > 16 + 15 {
                ix >>= 1;
                exponent += 1;
            }
            ix -= 16;
            ix += exponent << 4;
        }
        if sample >= 0 {
            ix |= 0x80;
        }
        (ix ^ 0x55) as u8
    }

    #[test]
    fn every_linear_sample_has_the_code_of_the_itu_library() {
        for sample in i16::MIN..=i16::MAX {
            assert_eq!(ulaw_encode(sample), ulaw_of_the_library(sample), "µ-law of {sample}");
            assert_eq!(alaw_encode(sample), alaw_of_the_library(sample), "A-law of {sample}");
        }
    }

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        for code in 0..=255u8 {
            assert_eq!(alaw_encode(ALAW[usize::from(code)]), code);
            // µ-law has two zeros; the encoder knows the positive one.
            let expected = if code == 0x7f { 0xff } else { code };
            assert_eq!(ulaw_encode(ULAW[usize::from(code)]), expected);
        }
    }

    #[test]
    fn known_values_are_those_of_the_recommendation() {
        for (code, value) in [
            (0x00, -32124),
            (0x80, 32124),
            (0x7f, 0),
            (0xff, 0),
            (0xfe, 8),
            (0x7e, -8),
            (0xef, 132),
            (0x8f, 16764),
        ] {
            assert_eq!(ULAW[code], value, "µ-law {code:#04x}");
        }
        for (code, value) in
            [(0xd5, 8), (0x55, -8), (0xd4, 24), (0xaa, 32256), (0x2a, -32256), (0x80, 5504), (0xc5, 264)]
        {
            assert_eq!(ALAW[code], value, "A-law {code:#04x}");
        }
        assert_eq!((ulaw_encode(0), alaw_encode(0)), (0xff, 0xd5));
        assert_eq!((ulaw_encode(i16::MAX), ulaw_encode(i16::MIN)), (0x80, 0x00));
        assert_eq!((alaw_encode(i16::MAX), alaw_encode(i16::MIN)), (0xaa, 0x2a));
    }
}
