//! The pickle machine, cut down to instructions that build plain values.
//!
//! Values live in an arena and refer to each other by number, so that an instruction costs constant memory whatever it
//! repeats: a pickle of `n` bytes makes at most `n` values. The few instructions that copy are counted.

mod calls;

use std::collections::HashMap;

use super::globals::{Element, Global, lookup};

/// The number of a value in the arena.
pub(super) type Id = usize;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A list or a tuple.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// Stored numbers: their place in the container, and how many there are.
    Storage {
        key: String,
        element: Element,
        count: usize,
    },
    Tensor {
        storage: Id,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    },
    /// Something that is passed over, by its name.
    Object(String),
}

/// A pickle as values.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
}

/// Reads the pickle at the start of `bytes`; also gives its length.
pub(super) fn read(bytes: &[u8]) -> Result<(Pickle, usize), String> {
    let mut machine = Machine { bytes, at: 0, nodes: Vec::new(), copied: 0, stack: Vec::new(), memo: HashMap::new() };
    let root = machine.run()?;
    Ok((Pickle { nodes: machine.nodes, root }, machine.at))
}

#[derive(Debug, Clone, Copy)]
enum Item {
    Mark,
    Value(Id),
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    /// Bytes of values that were copied out of others so far.
    copied: usize,
    stack: Vec<Item>,
    memo: HashMap<u32, Id>,
}

const SHORT: &str = "its pickle ends too early; the file may be truncated";
const DISORDER: &str = "its pickle is corrupt: an instruction finds no such value";
/// More bytes than calls and references copy in any checkpoint.
const MOST_COPIED: usize = 1 << 24;

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or(SHORT)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, String> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(self.take(N)?);
        Ok(u64::from_le_bytes(wide))
    }

    fn sized<const N: usize>(&mut self) -> Result<&'a [u8], String> {
        let count = usize::try_from(self.number::<N>()?).map_err(|_| SHORT)?;
        self.take(count)
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(SHORT)?;
        let line = self.take(length + 1)?;
        std::str::from_utf8(&line[..length]).map_err(|_| DISORDER.into())
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(Item::Value(self.nodes.len() - 1));
    }

    /// Pushes what was copied out of other values, which a pickle may ask for again and again in a few bytes.
    fn push_copy(&mut self, node: Node) -> Result<(), String> {
        self.copied += match &node {
            Node::Text(text)
            | Node::Object(text)
            | Node::Storage { key: text, .. }
            | Node::Global(Global::Text(text) | Global::Inert(text)) => text.len(),
            Node::List(items) => size_of_val(&items[..]),
            Node::Dict(pairs) => size_of_val(&pairs[..]),
            _ => 0,
        };
        if self.copied > MOST_COPIED {
            return Err("its pickle copies the same values without end".into());
        }
        self.push(node);
        Ok(())
    }

    fn text(&mut self, bytes: &[u8]) {
        self.push(Node::Text(String::from_utf8_lossy(bytes).into_owned()));
    }

    fn pop(&mut self) -> Result<Id, String> {
        match self.stack.pop() {
            Some(Item::Value(id)) => Ok(id),
            _ => Err(DISORDER.into()),
        }
    }

    fn top(&self) -> Result<Id, String> {
        match self.stack.last() {
            Some(Item::Value(id)) => Ok(*id),
            _ => Err(DISORDER.into()),
        }
    }

    /// The values above the last mark, which is taken away.
    fn marked(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.stack.iter().rposition(|item| matches!(item, Item::Mark)).ok_or(DISORDER)?;
        let values = self.stack.drain(mark..).skip(1);
        Ok(values.filter_map(|item| if let Item::Value(id) = item { Some(id) } else { None }).collect())
    }

    fn list(&mut self, count: usize) -> Result<(), String> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Node::List(items));
        Ok(())
    }

    fn run(&mut self) -> Result<Id, String> {
        loop {
            let [code] = self.take(1)? else { return Err(SHORT.into()) };
            match *code {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.stack.push(Item::Mark),
                b'N' => self.push(Node::None),
                0x88 => self.push(Node::Bool(true)),
                0x89 => self.push(Node::Bool(false)),
                b'K' => {
                    let value = self.number::<1>()?;
                    self.push(Node::Int(value as i64));
                }
                b'M' => {
                    let value = self.number::<2>()?;
                    self.push(Node::Int(value as i64));
                }
                b'J' => {
                    let value = self.number::<4>()? as u32 as i32;
                    self.push(Node::Int(i64::from(value)));
                }
                0x8a => {
                    let digits = self.sized::<1>()?;
                    self.push(long(digits));
                }
                b'G' => {
                    let value = f64::from_be_bytes(self.take(8)?.try_into().map_err(|_| SHORT)?);
                    self.push(Node::Float(value));
                }
                b'X' | b'T' | b'B' => {
                    let text = self.sized::<4>()?;
                    self.text(text);
                }
                0x8c | b'U' | b'C' => {
                    let text = self.sized::<1>()?;
                    self.text(text);
                }
                b')' | b']' | 0x8f => self.push(Node::List(Vec::new())),
                b'}' => self.push(Node::Dict(Vec::new())),
                b't' => {
                    let items = self.marked()?;
                    self.push(Node::List(items));
                }
                0x85 => self.list(1)?,
                0x86 => self.list(2)?,
                0x87 => self.list(3)?,
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' | 0x90 => {
                    let items = self.marked()?;
                    self.append(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.insert(&[key, value])?;
                }
                b'u' => {
                    let items = self.marked()?;
                    self.insert(&items)?;
                }
                b'q' => self.keep::<1>()?,
                b'r' => self.keep::<4>()?,
                0x94 => {
                    let (place, id) = (self.memo.len() as u32, self.top()?);
                    self.memo.insert(place, id);
                }
                b'h' => self.recall::<1>()?,
                b'j' => self.recall::<4>()?,
                b'c' => {
                    let (module, name) = (self.line()?.to_owned(), self.line()?.to_owned());
                    self.global(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Node::Text(module), Node::Text(name)) = (self.nodes[module].clone(), self.nodes[name].clone())
                    else {
                        return Err(DISORDER.into());
                    };
                    self.global(&module, &name)?;
                }
                b'R' | 0x81 => {
                    let (arguments, callable) = (self.pop()?, self.pop()?);
                    let node = self.call(callable, arguments)?;
                    self.push_copy(node)?;
                }
                // The state of an object: nothing that is kept has one.
                b'b' => drop(self.pop()?),
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push_copy(storage)?;
                }
                code => return Err(format!("its pickle uses instruction {code:#04x}, which no list of tensors needs")),
            }
        }
    }

    fn keep<const N: usize>(&mut self) -> Result<(), String> {
        let (place, id) = (self.number::<N>()? as u32, self.top()?);
        self.memo.insert(place, id);
        Ok(())
    }

    fn recall<const N: usize>(&mut self) -> Result<(), String> {
        let place = self.number::<N>()? as u32;
        let id = *self.memo.get(&place).ok_or(DISORDER)?;
        self.stack.push(Item::Value(id));
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::List(list) => list.extend(items),
            Node::Object(_) => {}
            _ => return Err(DISORDER.into()),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Dict(dict) => dict.extend(items.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value))),
            Node::Object(_) => {}
            _ => return Err(DISORDER.into()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let global = lookup(module, name).ok_or_else(|| {
            format!("its pickle calls for `{module}.{name}`, which is not on the list of allowed names")
        })?;
        self.push_copy(Node::Global(global))
    }
}

/// A whole number of any length, little-endian in two's complement; one that does not fit is as good as infinite.
fn long(digits: &[u8]) -> Node {
    if digits.len() > 8 {
        return Node::Float(f64::INFINITY);
    }
    let fill = if digits.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide[..digits.len()].copy_from_slice(digits);
    Node::Int(i64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::{Node, read};

    #[test]
    fn plain_values_are_read() {
        // {'a': [1, -2, 0.5], 'b': (True, None)} of protocol 2.
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffG?\xe0\x00\x00\x00\x00\x00\x00eX\x01\x00\x00\x00bq\x03\x88N\x86q\x04u.rest";
        let (pickle, length) = read(bytes).expect("a pickle");
        assert_eq!(length, bytes.len() - 4);
        let Node::Dict(pairs) = &pickle.nodes[pickle.root] else { panic!("not a dictionary") };
        let Node::List(first) = &pickle.nodes[pairs[0].1] else { panic!("not a list") };
        let values: Vec<&Node> = first.iter().map(|id| &pickle.nodes[*id]).collect();
        assert_eq!(values, [&Node::Int(1), &Node::Int(-2), &Node::Float(0.5)]);
    }

    #[test]
    fn a_name_that_is_not_allowed_ends_the_reading() {
        for bytes in [
            &b"cos\nsystem\n(X\x04\x00\x00\x00echotR."[..],
            b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04echo\x94\x85\x94R\x94.",
            b"cbuiltins\neval\n)R.",
            b"ctorch.optimum\nx\n)R.",
        ] {
            let reason = read(bytes).expect_err("a call");
            assert!(reason.contains("not on the list of allowed names"), "{reason}");
        }
        assert!(read(b"i__main__\nX\n.").expect_err("an instance").contains("instruction 0x69"));
    }

    #[test]
    fn disorder_and_bombs_are_errors() {
        for bytes in [
            &b""[..],
            b".",
            b"(.",
            b"t.",
            b"h\x05.",
            b"K",
            b"X\xff\xff\xff\xffshort.",
            b"K\x01K\x02a.",
            b"}K\x01s.",
            b"NR.",
            b"ccollections\nOrderedDict\nK\x01\x85R.",
            b"(((((((",
            b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
            b"K\x01Q.",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        // A list that holds a list twice, a thousand times over: 2^1000 paths, a thousand values.
        let mut bytes = b"]q\x00".to_vec();
        for _ in 0..1000 {
            bytes.extend(b"0h\x00h\x00\x86q\x00");
        }
        assert!(read(&bytes).is_err(), "there is no instruction to drop a value");
        let bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'0').chain([b'.']).collect();
        assert!(read(&bytes).expect("a pickle").0.nodes.len() < 2000);
    }

    #[test]
    fn what_a_call_copies_is_counted() {
        // The text of a device, 64 KiB, for five bytes each time.
        let text = [&b"X\x00\x00\x01\x00"[..], &[b'a'; 1 << 16]].concat();
        let calls = |count: usize| {
            let calls = b"h\x02h\x03R".repeat(count);
            [&b"](ctorch\ndevice\nq\x02"[..], &text[..], b"\x85q\x03", &calls[..], b"e."].concat()
        };
        assert!(read(&calls(10)).is_ok());
        assert!(read(&calls(1000)).expect_err("a bomb").contains("without end"));
    }
}
