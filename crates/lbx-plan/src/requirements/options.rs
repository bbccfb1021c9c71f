//! The options of requirement files, in every spelling that pip takes: `-f x`, `-fx`, `--find-links=x`, `--find x`.

/// What an option of a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// An option that is known, by its full name, with its value if it has one.
    Option(&'static str, String),
    /// Any other word.
    Other(String),
}

/// The options that pip knows in requirement files: long name, short name, whether a value follows.
const OPTIONS: [(&str, &str, bool); 21] = [
    ("--all-releases", "", true),
    ("--config-settings", "-C", true),
    ("--constraint", "-c", true),
    ("--editable", "-e", true),
    ("--extra-index-url", "", true),
    ("--find-links", "-f", true),
    ("--global-option", "", true),
    ("--hash", "", true),
    ("--index-url", "-i", true),
    ("--install-option", "", true),
    ("--no-binary", "", true),
    ("--no-index", "", false),
    ("--only-binary", "", true),
    ("--only-final", "", true),
    ("--pre", "", false),
    ("--prefer-binary", "", false),
    ("--pypi-url", "", true),
    ("--require-hashes", "", false),
    ("--requirement", "-r", true),
    ("--trusted-host", "", true),
    ("--use-feature", "", true),
];

/// The words of a line that begins with an option.
pub(super) fn parse(text: &str) -> Vec<Word> {
    let mut found = Vec::new();
    let mut words = split(text).into_iter();
    while let Some(word) = words.next() {
        let Some((name, takes, attached)) = option(&word) else {
            found.push(Word::Other(word));
            continue;
        };
        let value = match attached {
            Some(value) => value.to_owned(),
            None if takes => words.next().unwrap_or_default(),
            None => String::new(),
        };
        found.push(Word::Option(name, value));
    }
    found
}

/// The option that a word is, whether it takes a value, and the value that is in the same word.
fn option(word: &str) -> Option<(&'static str, bool, Option<&str>)> {
    if word.starts_with("--") {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        // Whole, or as much of it as tells it from the others.
        let exact = OPTIONS.iter().find(|(long, ..)| *long == name);
        let mut begins = OPTIONS.iter().filter(|(long, ..)| long.starts_with(name) && name.len() > 2);
        let (long, _, takes) = exact.or(match (begins.next(), begins.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        })?;
        return Some((long, *takes, value));
    }
    let (long, short, takes) =
        OPTIONS.iter().find(|(_, short, _)| !short.is_empty() && word.starts_with(short))?;
    let rest = &word[short.len()..];
    Some((long, *takes, (!rest.is_empty()).then(|| rest.trim_start_matches('='))))
}

/// Words as a shell tells them apart: quotes, and backslashes outside of single ones.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(characters.next()),
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Words as one line that is split into them again.
pub(super) fn join(words: &[Word]) -> String {
    let one = |word: &Word| match word {
        Word::Option(name, value) if value.is_empty() => (*name).to_owned(),
        Word::Option(name, value) => format!("{name}={}", quoted(value)),
        Word::Other(word) => quoted(word),
    };
    words.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\' | '#');
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_an_option_is_that_option() {
        let find = |value: &str| Word::Option("--find-links", value.to_owned());
        for text in
            ["-f a", "-fa", "-f=a", "--find-links a", "--find-links=a", "--find a", "-f 'a'", "-f \"a\""]
        {
            assert_eq!(parse(text), [find("a")], "{text}");
        }
        assert_eq!(parse("--no-index -f a")[1..], [find("a")]);
        assert_eq!(parse("--index=u"), [Word::Option("--index-url", "u".to_owned())]);
        // Two begin so.
        assert_eq!(parse("--no- x"), [Word::Other("--no-".to_owned()), Word::Other("x".to_owned())]);
        assert_eq!(parse("--unknown -i u")[1..], [Word::Option("--index-url", "u".to_owned())]);
    }

    proptest! {
        #[test]
        fn what_is_joined_is_split_into_the_same_words(text in "[-a-f =\"'\\\\#]{0,60}") {
            let words = parse(&text);
            // An option whose value is missing or empty is written without one.
            prop_assume!(words.iter().all(|word| !matches!(word, Word::Option(_, value) if value.is_empty() || value.starts_with('-'))));
            prop_assume!(words.iter().all(|word| !matches!(word, Word::Other(word) if option(word).is_some())));
            prop_assert_eq!(parse(&join(&words)), words);
        }
    }
}
