//! Writes what `postcard` writes, in a quarter of the instructions: most of a machine are small numbers, and each of them is one byte here
//! without a detour by a buffer of its own. It is read back by `postcard`.

use serde::Serialize;
use serde::ser::{
    self, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Why something cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WriteError {
    /// A list that does not know how long it is.
    #[error("a list of unknown length")]
    Length,
    /// What its own `Serialize` says.
    #[error("{0}")]
    Own(String),
}

impl ser::Error for WriteError {
    fn custom<T: std::fmt::Display>(why: T) -> WriteError {
        WriteError::Own(why.to_string())
    }
}

/// Appends to a vector.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    #[inline]
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// Numbers near zero of either sign are short.
    #[inline]
    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    fn long(&mut self, mut number: u128) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

/// Numbers of several bytes are as long as they must be.
macro_rules! numbers {
    ($($serialize:ident ($number:ty) by $write:ident,)*) => {$(
        #[inline]
        fn $serialize(self, v: $number) -> Result<(), WriteError> {
            self.$write(v.into());
            Ok(())
        }
    )*};
}

impl Serializer for &mut Writer<'_> {
    type Ok = ();
    type Error = WriteError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;
    #[inline]
    fn serialize_bool(self, v: bool) -> Result<(), WriteError> {
        self.0.push(v.into());
        Ok(())
    }
    numbers! {
        serialize_i16(i16) by signed,
        serialize_i32(i32) by signed,
        serialize_i64(i64) by signed,
        serialize_u16(u16) by number,
        serialize_u32(u32) by number,
        serialize_u64(u64) by number,
        serialize_u128(u128) by long,
    }
    #[inline]
    fn serialize_i8(self, v: i8) -> Result<(), WriteError> {
        self.0.push(v as u8);
        Ok(())
    }
    #[inline]
    fn serialize_i128(self, v: i128) -> Result<(), WriteError> {
        self.long(((v << 1) ^ (v >> 127)) as u128);
        Ok(())
    }
    #[inline]
    fn serialize_u8(self, v: u8) -> Result<(), WriteError> {
        self.0.push(v);
        Ok(())
    }
    #[inline]
    fn serialize_f32(self, v: f32) -> Result<(), WriteError> {
        self.0.extend_from_slice(&v.to_bits().to_le_bytes());
        Ok(())
    }
    #[inline]
    fn serialize_f64(self, v: f64) -> Result<(), WriteError> {
        self.0.extend_from_slice(&v.to_bits().to_le_bytes());
        Ok(())
    }
    fn serialize_char(self, v: char) -> Result<(), WriteError> {
        self.bytes(v.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }
    #[inline]
    fn serialize_str(self, v: &str) -> Result<(), WriteError> {
        self.bytes(v.as_bytes());
        Ok(())
    }
    #[inline]
    fn serialize_bytes(self, v: &[u8]) -> Result<(), WriteError> {
        self.bytes(v);
        Ok(())
    }
    #[inline]
    fn serialize_none(self) -> Result<(), WriteError> {
        self.0.push(0);
        Ok(())
    }
    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), WriteError> {
        self.0.push(1);
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), WriteError> {
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), WriteError> {
        Ok(())
    }
    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
    ) -> Result<(), WriteError> {
        self.number(variant.into());
        Ok(())
    }
    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), WriteError> {
        value.serialize(self)
    }
    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), WriteError> {
        self.number(variant.into());
        value.serialize(self)
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Self, WriteError> {
        self.number(len.ok_or(WriteError::Length)? as u64);
        Ok(self)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self, WriteError> {
        Ok(self)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, WriteError> {
        Ok(self)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, WriteError> {
        self.number(variant.into());
        Ok(self)
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Self, WriteError> {
        self.number(len.ok_or(WriteError::Length)? as u64);
        Ok(self)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, WriteError> {
        Ok(self)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, WriteError> {
        self.number(variant.into());
        Ok(self)
    }
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The parts of something stand one after the other.
macro_rules! one_after_the_other {
    ($($of:ident $part:ident ($($name:ty)?),)*) => {$(
        impl $of for &mut Writer<'_> {
            type Ok = ();
            type Error = WriteError;
            #[inline]
            fn $part<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Result<(), WriteError> {
                value.serialize(&mut **self)
            }
            fn end(self) -> Result<(), WriteError> {
                Ok(())
            }
        }
    )*};
}

one_after_the_other! {
    SerializeSeq serialize_element (),
    SerializeTuple serialize_element (),
    SerializeTupleStruct serialize_field (),
    SerializeTupleVariant serialize_field (),
    SerializeStruct serialize_field (&'static str),
    SerializeStructVariant serialize_field (&'static str),
}

impl SerializeMap for &mut Writer<'_> {
    type Ok = ();
    type Error = WriteError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), WriteError> {
        key.serialize(&mut **self)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
        value.serialize(&mut **self)
    }
    fn end(self) -> Result<(), WriteError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use super::*;

    #[derive(Serialize)]
    struct Unit;

    #[derive(Serialize)]
    struct New(u16);

    #[derive(Serialize)]
    struct Pair(i8, char);

    #[derive(Serialize)]
    enum Kind {
        Unit,
        New(u64),
        Pair(i64, f64),
        Fields { a: bool, b: Option<String> },
    }

    fn same(value: &impl Serialize) {
        let mut written = Vec::new();
        value.serialize(&mut Writer(&mut written)).unwrap();
        assert_eq!(written, postcard::to_allocvec(value).unwrap());
    }

    #[test]
    fn everything_is_written_as_postcard_writes_it() {
        for n in [0, 1, 127, 128, 255, 256, 16_383, 16_384, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX] {
            same(&(
                n,
                n as i64,
                (n as i64).wrapping_neg(),
                n as u32,
                n as i32,
                n as u16,
                n as i16,
                n as u8,
                n as i8,
            ));
            same(&(u128::from(n) << 60, -(i128::from(n) << 60), n as usize, n as f32, -(n as f64)));
        }
        same(&(i64::MIN, i128::MIN, u128::MAX, true, false, (), Unit, New(300), Pair(-1, '\u{1F600}'), 'a'));
        same(&[Kind::Unit, Kind::New(1 << 40), Kind::Pair(-300, 1.5)]);
        same(&(Kind::Fields { a: true, b: Some("\u{e9}".repeat(100)) }, Kind::Fields { a: false, b: None }));
        same(&(bytes::Bytes::from_static(&[7; 200]), vec![1_u16, 2], [3_u8; 4], Some(Some(4)), None::<u8>));
        same(&BTreeMap::from([("a", vec![1]), ("b", vec![])]));
        same(
            &(
                Duration::from_millis(1_234),
                "192.0.2.1:5060".parse::<SocketAddr>(),
                "2001:db8::1".parse::<IpAddr>(),
            )
                .1
                .ok(),
        );
        same(&Duration::from_millis(1_234));
    }

    #[test]
    fn a_list_that_does_not_know_its_length_is_not_written() {
        struct Endless;
        impl Serialize for Endless {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_seq(None)?.end()
            }
        }
        assert_eq!(Endless.serialize(&mut Writer(&mut Vec::new())), Err(WriteError::Length));
    }
}
