//! Taking secrets out of text before any of it is stored.
//!
//! The text is a stream of bytes whose pieces end anywhere. What might still become a secret with the bytes to come is
//! held back, everything else goes on at once; the time is linear in the text.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use gust_model::is_sensitive_name;
use serde_json::Value;

/// What stands in a secret's place.
const MASK: &[u8] = b"***";

/// More held bytes than this are looked through for what need not be kept.
const MAX_HELD_BYTES: usize = 64 * 1024;

/// Never masked, though it may be somebody's password: it stands in every other line
/// (`airflow/sdk/_shared/secrets_masker: SECRETS_TO_SKIP_MASKING`).
const NEVER: &str = "airflow";

/// The secrets of one try, shared by who learns them and who writes its log.
#[derive(Debug)]
pub struct Secrets {
    min_length: usize,
    /// In lower case.
    more_names: Vec<String>,
    known: Mutex<BTreeSet<Vec<u8>>>,
    version: AtomicU64,
}

impl Secrets {
    /// No secrets yet. `more_names` make values secrets besides Airflow's own list.
    #[must_use]
    pub fn new(min_length: usize, more_names: &[String]) -> Self {
        let more = more_names.iter().map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty());
        Self { min_length, more_names: more.collect(), known: Mutex::default(), version: AtomicU64::new(0) }
    }

    /// Whether a value under this name is a secret.
    #[must_use]
    pub fn is_sensitive(&self, name: &str) -> bool {
        is_sensitive_name(name, &self.more_names)
    }

    /// Adds a value and all texts within it. Under a name it is added only if the name is sensitive; within an object
    /// each entry goes by its own.
    pub fn add(&self, value: &Value, name: Option<&str>) {
        match value {
            Value::String(text) => {
                if name.is_none_or(|name| self.is_sensitive(name)) {
                    self.add_text(text);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item, name)),
            Value::Object(entries) => entries.iter().for_each(|(key, item)| self.add(item, Some(key))),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Adds a secret, in each of the forms in which it may stand in a line.
    pub fn add_text(&self, secret: &str) {
        if secret.chars().count() < self.min_length || secret.eq_ignore_ascii_case(NEVER) {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = known.insert(secret.as_bytes().to_vec());
        // Lines are JSON: quotes, backslashes and line ends stand escaped in them, other alphabets perhaps too.
        let escaped = Value::from(secret).to_string();
        is_new |= known.insert(escaped.as_bytes()[1..escaped.len() - 1].to_vec());
        if !secret.is_ascii() {
            is_new |= known.insert(ascii_escaped(&escaped[1..escaped.len() - 1]));
        }
        drop(known);
        if is_new {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn automaton(&self) -> Automaton {
        Automaton::new(self.known.lock().unwrap_or_else(PoisonError::into_inner).iter())
    }
}

fn ascii_escaped(json: &str) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(json.len() * 2);
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out.into_bytes()
}

/// Aho and Corasick's automaton: its state is the longest end of the text so far that begins a secret.
#[derive(Debug, Default)]
struct Automaton {
    next: HashMap<(u32, u8), u32>,
    fail: Vec<u32>,
    depth: Vec<u32>,
    /// The length of the longest secret that ends in a state; 0 for none.
    ends: Vec<u32>,
    starts: Vec<bool>,
}

impl Automaton {
    #[expect(clippy::cast_possible_truncation, reason = "Secrets of 2^32 bytes do not fit a frame.")]
    fn new<'a>(patterns: impl Iterator<Item = &'a Vec<u8>>) -> Self {
        let mut this = Self {
            fail: vec![0],
            depth: vec![0],
            ends: vec![0],
            starts: vec![false; 256],
            next: HashMap::new(),
        };
        let mut children: Vec<Vec<(u8, u32)>> = vec![Vec::new()];
        for pattern in patterns.filter(|pattern| !pattern.is_empty()) {
            this.starts[usize::from(pattern[0])] = true;
            let mut state = 0;
            for &byte in pattern {
                state = *this.next.entry((state, byte)).or_insert_with(|| {
                    let fresh = this.fail.len() as u32;
                    this.fail.push(0);
                    this.depth.push(this.depth[state as usize] + 1);
                    this.ends.push(0);
                    children.push(Vec::new());
                    children[state as usize].push((byte, fresh));
                    fresh
                });
            }
            this.ends[state as usize] = pattern.len() as u32;
        }
        // Breadth first, so that a state's failure is settled before its children's.
        let mut queue: std::collections::VecDeque<u32> =
            children[0].iter().map(|&(_, child)| child).collect();
        while let Some(state) = queue.pop_front() {
            for &(byte, child) in &children[state as usize] {
                let fail = this.step(this.fail[state as usize], byte);
                this.fail[child as usize] = fail;
                this.ends[child as usize] = this.ends[child as usize].max(this.ends[fail as usize]);
                queue.push_back(child);
            }
        }
        this
    }

    fn is_empty(&self) -> bool {
        self.fail.len() <= 1
    }

    fn step(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            if let Some(&next) = self.next.get(&(state, byte)) {
                return next;
            }
            if state == 0 {
                return 0;
            }
            state = self.fail[state as usize];
        }
    }
}

/// Redacts one stream.
#[derive(Debug)]
pub struct Redactor {
    secrets: Arc<Secrets>,
    version: u64,
    automaton: Automaton,
    state: u32,
    /// Bytes not passed on yet.
    held: Vec<u8>,
    /// Which of them belong to a secret that was found.
    masked: Masked,
}

/// Which held bytes are secret: ranges relative to the start of the held bytes, in order, apart from each other.
type Masked = Vec<(usize, usize)>;

impl Redactor {
    /// A redactor of a fresh stream.
    #[must_use]
    pub fn new(secrets: Arc<Secrets>) -> Self {
        let (version, automaton) = (secrets.version(), secrets.automaton());
        Self { secrets, version, automaton, state: 0, held: Vec::new(), masked: Vec::new() }
    }

    /// Takes the next piece and writes what is settled to `out`.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.refresh();
        if self.automaton.is_empty() {
            out.extend_from_slice(piece);
            return;
        }
        let start = self.held.len();
        self.held.extend_from_slice(piece);
        self.scan(start);
        let settled = self.held.len() - self.automaton.depth[self.state as usize] as usize;
        self.emit(settled, out);
        self.shrink();
    }

    /// Writes what is held back: nothing more comes.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.emit(self.held.len(), out);
        self.state = 0;
    }

    fn refresh(&mut self) {
        let version = self.secrets.version();
        if version != self.version {
            self.version = version;
            self.automaton = self.secrets.automaton();
            self.state = 0;
            self.masked.clear();
            self.scan(0);
        }
    }

    fn scan(&mut self, from: usize) {
        let mut at = from;
        while at < self.held.len() {
            if self.state == 0 {
                // Most bytes begin no secret.
                match self.held[at..].iter().position(|&byte| self.automaton.starts[usize::from(byte)]) {
                    Some(skip) => at += skip,
                    None => return,
                }
            }
            self.state = self.automaton.step(self.state, self.held[at]);
            at += 1;
            let length = self.automaton.ends[self.state as usize] as usize;
            if length > 0 {
                let mut found = (at - length, at);
                while let Some(&(start, end)) = self.masked.last()
                    && end > found.0
                {
                    self.masked.pop();
                    found = (found.0.min(start), found.1.max(end));
                }
                self.masked.push(found);
            }
        }
    }

    /// A secret that repeats without end is one mask: its bytes need not be kept to know that.
    fn shrink(&mut self) {
        if self.held.len() < MAX_HELD_BYTES {
            return;
        }
        if let Some(&(0, end)) = self.masked.first() {
            let keep = (self.automaton.depth[self.state as usize] as usize).max(1);
            let dropped = end.saturating_sub(keep);
            self.held.drain(..dropped);
            self.masked
                .iter_mut()
                .for_each(|range| *range = (range.0.saturating_sub(dropped), range.1 - dropped));
        }
    }

    /// Passes on the first `settled` bytes; a secret that reaches beyond them stays whole.
    fn emit(&mut self, settled: usize, out: &mut Vec<u8>) {
        let mut settled = settled;
        if let Some(&(start, _)) = self.masked.iter().find(|&&(start, end)| start < settled && end > settled)
        {
            settled = start;
        }
        let mut from = 0;
        let mut used = 0;
        for &(start, end) in self.masked.iter().take_while(|&&(_, end)| end <= settled) {
            out.extend_from_slice(&self.held[from..start]);
            out.extend_from_slice(MASK);
            from = end;
            used += 1;
        }
        out.extend_from_slice(&self.held[from..settled]);
        self.masked.drain(..used);
        self.masked.iter_mut().for_each(|range| *range = (range.0 - settled, range.1 - settled));
        self.held.drain(..settled);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn secrets(texts: &[&str]) -> Arc<Secrets> {
        let secrets = Secrets::new(1, &[]);
        for text in texts {
            secrets.add_text(text);
        }
        Arc::new(secrets)
    }

    fn redact(secrets: &Arc<Secrets>, pieces: &[&[u8]]) -> String {
        let mut redactor = Redactor::new(Arc::clone(secrets));
        let mut out = Vec::new();
        for piece in pieces {
            redactor.feed(piece, &mut out);
        }
        redactor.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[rstest]
    #[case(&["hunter2"], "the word is hunter2.", "the word is ***.")]
    #[case(&["abc", "abcdef"], "xabcdefx abcx", "x***x ***x")]
    #[case(&["she", "hers"], "ushers", "u***")]
    #[case(&["aa"], "aaaaa b", "*** b")]
    #[case(&["say \"x\""], r#"{"event":"say \"x\" now"}"#, r#"{"event":"*** now"}"#)]
    #[case(&["grün99"], r#"{"event":"gr\u00fcn99"}"#, r#"{"event":"***"}"#)]
    #[case(&["two\nlines"], "a two\nlines b", "a *** b")]
    fn secrets_are_masked_in_every_form(#[case] known: &[&str], #[case] text: &str, #[case] expected: &str) {
        assert_eq!(redact(&secrets(known), &[text.as_bytes()]), expected);
    }

    #[test]
    fn nothing_is_held_back_that_cannot_become_a_secret() {
        let mut redactor = Redactor::new(secrets(&["hunter2"]));
        let mut out = Vec::new();
        redactor.feed(b"line one\nhun", &mut out);
        assert_eq!(out, b"line one\n");
        redactor.feed(b"t", &mut out);
        redactor.feed(b"ing\n", &mut out);
        assert_eq!(out, b"line one\nhunting\n");
    }

    #[test]
    fn a_secret_learnt_within_a_stream_masks_what_follows() {
        let secrets = secrets(&["first"]);
        let mut redactor = Redactor::new(Arc::clone(&secrets));
        let mut out = Vec::new();
        redactor.feed(b"second first fir", &mut out);
        secrets.add_text("second");
        redactor.feed(b"st second", &mut out);
        redactor.finish(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "second *** *** ***");
    }

    #[test]
    fn short_values_and_harmless_names_are_left_alone() {
        let secrets = Secrets::new(5, &["internal".to_owned()]);
        secrets.add(
            &serde_json::json!({"host": "db.example", "password": "s3cr3t!", "pin_token": "1234"}),
            None,
        );
        secrets.add(&serde_json::json!(["airflow", "longenough"]), None);
        secrets.add(&serde_json::json!("by name"), Some("My-Internal key"));
        let secrets = Arc::new(secrets);
        let text = b"db.example s3cr3t! 1234 airflow longenough by name";
        assert_eq!(redact(&secrets, &[text]), "db.example *** 1234 airflow *** ***");
    }

    proptest! {
        #[test]
        fn where_pieces_end_changes_nothing(
            known in prop::collection::vec("[ab]{1,4}", 0..4),
            text in "[abc]{0,60}",
            cuts in prop::collection::vec(0usize..60, 0..8),
        ) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let secrets = secrets(&known);
            let whole = redact(&secrets, &[text.as_bytes()]);
            for secret in &known {
                prop_assert!(!whole.contains(secret), "{secret} in {whole}");
            }
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < text.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&text.as_bytes()[from..]);
            prop_assert_eq!(redact(&secrets, &pieces), whole);
        }
    }
}
