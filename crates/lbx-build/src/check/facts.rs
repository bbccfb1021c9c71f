//! What is to be known of a file's content: found when it is read, and kept, so that it is read once.

use std::collections::HashMap;
use std::sync::LazyLock;

use aho_corasick::packed;

use super::Known;
use lbx_elf::{Elf, Kind, Machine, is_elf};
use regex::bytes::RegexSet;
use serde::{Deserialize, Serialize};

/// The form of what is kept, counted up whenever more is looked at.
pub(crate) const FACTS: &str = "facts-1";

/// What a file has in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Machine code for Linux, and what it asks for; or why it cannot be read.
    pub(crate) elf: Option<Result<ElfFacts, String>>,
    /// What looks as if it should be known to nobody else, with its line.
    pub(crate) secrets: Vec<(String, usize)>,
}

/// What a library or program asks of the system that it runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ElfFacts {
    /// The CPU, as the kernel calls it.
    pub(crate) machine: String,
    pub(crate) is_shared: bool,
    pub(crate) soname: Option<String>,
    pub(crate) needed: Vec<String>,
    /// Where it looks for them first.
    pub(crate) paths: Vec<String>,
    /// Versions of symbols, with the library that is to have them, and one symbol that has the version.
    pub(crate) versions: Vec<(String, String, Option<String>)>,
}

/// The most bytes of a file that is looked into, which is held in memory for that. Lambda takes no larger one.
pub(crate) const LARGEST: u64 = 262_144_000;

/// Whether a wheel's file is looked into at all: by its name, because its content would have to be inflated. Libraries
/// are called so, and programs have the bit.
pub(crate) fn has_facts(path: &str, executable: bool, size: u64) -> bool {
    if size > LARGEST {
        return false;
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    executable
        || name.contains(".so.")
        || std::path::Path::new(name).extension().is_some_and(|end| end == "so")
}

/// Looks into a file. Only the user's own are searched for secrets, those that are `known` and others: a wheel is everybody's.
pub(crate) fn look(content: &[u8], known: Option<&Known>) -> Option<Facts> {
    let elf = is_elf(content).then(|| elf(content));
    let mut secrets = known.map_or_else(Vec::new, |known| known.find(content));
    if known.is_some() && elf.is_none() {
        secrets.extend(self::secrets(content));
    }
    (elf.is_some() || !secrets.is_empty()).then_some(Facts { elf, secrets })
}

fn elf(content: &[u8]) -> Result<ElfFacts, String> {
    let elf = Elf::parse(content).map_err(|error| error.to_string())?;
    // Of each version the first symbol: some libraries have very many of both.
    let mut symbols: HashMap<(&str, &str), &str> = HashMap::new();
    for symbol in &elf.undefined {
        if let (Some(version), Some(library)) = (&symbol.version, &symbol.library) {
            symbols.entry((version, library)).or_insert(&symbol.name);
        }
    }
    let symbol =
        |version: &str, library: &str| symbols.get(&(version, library)).map(|name| (*name).to_owned());
    let versions = elf
        .needs
        .iter()
        .filter(|need| !need.weak)
        .map(|need| (need.library.clone(), need.version.clone(), symbol(&need.version, &need.library)));
    Ok(ElfFacts {
        machine: match elf.machine {
            Machine::X86_64 => "x86_64".to_owned(),
            Machine::Aarch64 => "aarch64".to_owned(),
            Machine::Other(number) => format!("number {number}"),
        },
        is_shared: elf.kind == Kind::Shared,
        versions: versions.collect(),
        paths: if elf.runpath.is_empty() { elf.rpath } else { elf.runpath },
        soname: elf.soname,
        needed: elf.needed,
    })
}

/// What credentials look like: those that their makers gave a shape for the purpose, and keys.
const SECRETS: [(&str, &str); 11] = [
    // With what follows the line: code that reads or writes keys has the line alone.
    (
        "a private key",
        r#"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:\\r|\\n|[\s>#*/"'+,(|])+(?:[A-Za-z0-9+/=]{16}|[A-Za-z-]+: )"#,
    ),
    ("an access key of AWS", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    (
        "a secret key of AWS",
        r#"(?i)aws_?secret_?access_?key["']?\s*[:=]\s*["']?[A-Za-z0-9/+]{40}(?:[^A-Za-z0-9/+=]|$)"#,
    ),
    ("a token of GitHub", r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82})\b"),
    ("a token of GitLab", r"\bglpat-[A-Za-z0-9_-]{20}"),
    ("a token of PyPI", r"\bpypi-AgE[A-Za-z0-9_-]{50,}"),
    ("a token of Slack", r"\bxox[abprs]-[0-9]{10,}-[A-Za-z0-9-]{10,}"),
    ("a key of Stripe", r"\b[rs]k_live_[A-Za-z0-9]{20,}"),
    ("a key of Google", r"\bAIza[A-Za-z0-9_-]{35}\b"),
    ("a key of OpenAI", r"\bsk-(?:proj-)?[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}"),
    ("a login in an address", r#"\b[a-z][a-z0-9+.-]*://[^\s/:@"'{}<>$%]+:[^\s/:@"'{}<>$%]{8,}@[a-z0-9.-]+"#),
];

static PATTERNS: LazyLock<Option<(RegexSet, Vec<regex::bytes::Regex>)>> = LazyLock::new(|| {
    let patterns = SECRETS.map(|(_, pattern)| pattern);
    let each = patterns.iter().map(|pattern| regex::bytes::Regex::new(pattern));
    // A test sees to it that they all are patterns.
    Some((RegexSet::new(patterns).ok()?, each.collect::<Result<_, _>>().ok()?))
});

/// Of each pattern, something that a text has which it matches: to find out that it has none is several times faster.
const PARTS: [&str; 18] = [
    "PRIVATE KEY",
    "AKIA",
    "ASIA",
    "ecret",
    "ECRET",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "pypi-AgE",
    "xox",
    "k_live_",
    "AIza",
    "T3BlbkFJ",
    "://",
];

/// Looks at many bytes at once, where the CPU can.
static PARTS_OF_PATTERNS: LazyLock<Option<packed::Searcher>> = LazyLock::new(|| packed::Searcher::new(PARTS));

/// What the keys have in them that AWS's documentation is full of.
const EXAMPLE: &str = "EXAMPLE";

/// The most bytes of a text that are searched.
const SEARCHED: usize = 4 << 20;

/// Where a zero byte makes a file data, as git has it.
const START: usize = 8000;

fn secrets(content: &[u8]) -> Vec<(String, usize)> {
    if content[..content.len().min(START)].contains(&0) {
        return Vec::new();
    }
    let content = &content[..content.len().min(SEARCHED)];
    if PARTS_OF_PATTERNS.as_ref().is_some_and(|parts| parts.find(content).is_none()) {
        return Vec::new();
    }
    let Some((set, each)) = &*PATTERNS else { return Vec::new() };
    let found = set.matches(content);
    let place = |at: usize| {
        let start = each[at].find_iter(content).find(|found| !is_made_up(found.as_bytes()))?.start();
        Some((SECRETS[at].0.to_owned(), line_of(content, start)))
    };
    found.iter().filter_map(place).collect()
}

/// Whether something is there to be read, and opens nothing: a key of AWS's documentation, or a login of nobody's or for
/// this machine.
fn is_made_up(found: &[u8]) -> bool {
    const PASSWORDS: [&str; 5] = ["password", "passw0rd", "changeme", "mypassword", "your-password"];
    let text = String::from_utf8_lossy(found);
    if text.contains(EXAMPLE) {
        return true;
    }
    let login = text.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    let Some(((user, password), host)) = login.and_then(|(login, host)| Some((login.split_once(':')?, host)))
    else {
        return false;
    };
    let password = password.to_ascii_lowercase();
    let is_here = host.starts_with("localhost") || host.starts_with("127.");
    let is_example = host.split('.').any(|part| part == "example");
    PASSWORDS.contains(&password.as_str()) || password == user.to_ascii_lowercase() || is_here || is_example
}

/// The number of the line that a byte is in.
pub(super) fn line_of(content: &[u8], at: usize) -> usize {
    content[..at].split(|&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Vec<(String, usize)> {
        look(text.as_bytes(), Some(&Known::default())).unwrap_or_default().secrets
    }

    #[test]
    fn every_pattern_is_one() {
        assert!(PATTERNS.is_some());
    }

    #[test]
    fn credentials_are_found_with_their_line() {
        // Put together here, so that this file has none.
        let cases = [
            ("a private key", format!("'''-----BEGIN RSA {} KEY-----\nMIIEpAIBAAKCAQEA", "PRIVATE")),
            ("a private key", format!("'-----BEGIN {} KEY-----\\nMIIEpAIBAAKCAQEA'", "PRIVATE")),
            ("a private key", format!("'-----BEGIN {} KEY-----\\n' + 'MIIEpAIBAAKCAQEA'", "PRIVATE")),
            ("a private key", format!("-----BEGIN RSA {} KEY-----\nProc-Type: 4,ENCRYPTED", "PRIVATE")),
            ("an access key of AWS", format!("id = 'AKIA{}'", "ABCDEFGHIJKLMNOP")),
            ("a secret key of AWS", format!("aws_secret_access_key = {}", "a1B2".repeat(10))),
            ("a secret key of AWS", format!("\"AWS_SECRET_ACCESS_KEY\": \"{}\",", "a1B2".repeat(10))),
            ("a token of GitHub", format!("ghp_{}", "aB3d".repeat(9))),
            ("a token of GitLab", format!("glpat-{}", "aB3d".repeat(5))),
            ("a token of PyPI", format!("pypi-AgE{}", "aB3d".repeat(20))),
            ("a token of Slack", format!("xoxb-1234567890-{}", "aB3d".repeat(5))),
            ("a key of Stripe", format!("sk_live_{}", "aB3d".repeat(6))),
            ("a key of Google", format!("AIza{}", "aB3de".repeat(7))),
            ("a login in an address", "postgresql://admin:correct-horse@db.internal/x".to_owned()),
        ];
        for (what, text) in cases {
            assert_eq!(seen(&format!("import os\n\nx = {text}\n")), [(what.to_owned(), 3)], "{text}");
            assert_eq!(look(text.as_bytes(), None), None, "a wheel is everybody's");
        }
    }

    #[test]
    fn a_key_beside_one_of_the_documentation_is_found() {
        let text = format!("AKIAIOSFODNN7EXAMPLE\nAKIA{}\n", "ABCDEFGHIJKLMNOP");
        assert_eq!(seen(&text), [("an access key of AWS".to_owned(), 2)]);
    }

    #[test]
    fn data_is_not_searched() {
        let key = format!("-----BEGIN RSA {} KEY-----\nMIIEpAIBAAKCAQEA", "PRIVATE");
        assert_eq!(seen(&key).len(), 1);
        assert_eq!(seen(&format!("\0{key}")), []);
    }

    #[test]
    fn what_only_speaks_of_credentials_is_none() {
        for text in [
            "key = os.environ['AWS_SECRET_ACCESS_KEY']\n",
            "AKIA is how they begin\n",
            "key.replace('-----BEGIN PRIVATE KEY-----', '').replace('-----END PRIVATE KEY-----', '')\n",
            "if text.startswith(b'-----BEGIN OPENSSH PRIVATE KEY-----'):\n    pass\n",
            "postgresql://username:password@hostname/db and redis://admin:P@ssword@h\n",
            "postgresql://postgres:postgres@db/x and http://me:correct-horse@localhost:8000/\n",
            "https://me:correct-horse@index.example.com/simple\n",
            "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\n",
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
            "-----BEGIN CERTIFICATE-----\n",
            "url = f\"https://{user}:{password}@{host}/\"\n",
            "https://user:@host/ and https://${USER}:${PASSWORD}@host\n",
            "# postgresql://user:pass@localhost/db\n",
            "sha256 = 'a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90'\n",
        ] {
            assert_eq!(seen(text), [], "{text}");
        }
    }

    #[test]
    fn machine_code_that_cannot_be_read_is_said_to_be_so() {
        let facts = look(b"\x7fELF and then nothing of the kind", None).unwrap();
        assert!(facts.elf.unwrap().is_err());
        assert_eq!(look(b"", Some(&Known::default())), None);
    }

    #[test]
    fn libraries_and_programs_are_looked_into() {
        for path in ["a/b.so", "a/b.cpython-311-x86_64-linux-gnu.so", "x.libs/libz-1.so.1.2.3"] {
            assert!(has_facts(path, false, LARGEST), "{path}");
            assert!(!has_facts(path, true, LARGEST + 1), "{path}");
        }
        assert!(has_facts("bin/tool", true, 1) && !has_facts("a/b.py", false, 1));
        assert!(!has_facts("a.so/b.py", false, 1));
    }
}
