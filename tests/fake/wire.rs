//! As much of protobuf's wire format as the fake needs, independent of the code under test.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    let mut bytes = varint(field << 3);
    bytes.extend(varint(value));
    bytes
}

pub(crate) fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = varint((field << 3) | 2);
    bytes.extend(varint(value.len() as u64));
    bytes.extend(value);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

pub(crate) fn fields(mut message: &[u8]) -> Vec<(u64, Value)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = take(&mut message);
        let value = match key & 7 {
            0 => Value::Number(take(&mut message)),
            2 => {
                let size = take(&mut message) as usize;
                let (value, rest) = message.split_at(size);
                message = rest;
                Value::Bytes(value.to_vec())
            }
            kind => panic!("wire type {kind}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn take(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = message.split_first().expect("a whole message");
        *message = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The numbers of criu_req_type.
pub(crate) const DUMP: u64 = 1;
pub(crate) const RESTORE: u64 = 2;
pub(crate) const NOTIFY: u64 = 6;
pub(crate) const FEATURE_CHECK: u64 = 9;
pub(crate) const VERSION: u64 = 10;

/// criu_resp
pub(crate) fn response(kind: u64, success: bool, more: &[u8]) -> Vec<u8> {
    [number(1, kind), number(2, success.into()), more.to_vec()].concat()
}

pub(crate) fn version(major: u64, minor: u64) -> Vec<u8> {
    response(VERSION, true, &bytes(10, &[number(1, major), number(2, minor)].concat()))
}

pub(crate) fn event(script: &str) -> Vec<u8> {
    response(NOTIFY, true, &bytes(5, &bytes(1, script.as_bytes())))
}

pub(crate) fn dumped() -> Vec<u8> {
    response(DUMP, true, &bytes(3, &number(1, 0)))
}

pub(crate) fn restored(pid: i64) -> Vec<u8> {
    response(RESTORE, true, &bytes(4, &number(1, pid as u64)))
}
