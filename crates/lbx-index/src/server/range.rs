//! Parts of files: what a `Range` asks for.

/// What a client wants of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    /// From the first byte to behind the last.
    Part(u64, u64),
    /// Nothing that the file has.
    Nothing,
}

/// Reads a `Range` for a file of this size. What is not understood is as good as not said, as HTTP has it.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let range = header.and_then(|text| text.trim().strip_prefix("bytes=")).filter(|text| !text.contains(','));
    let Some((first, last)) = range.and_then(|text| text.trim().split_once('-')) else {
        return Wanted::Whole;
    };
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok());
    match (first, last) {
        ("", last) => match number(last).flatten() {
            Some(0) => Wanted::Nothing,
            Some(_) if size == 0 => Wanted::Nothing,
            Some(count) => Wanted::Part(size.saturating_sub(count), size),
            None => Wanted::Whole,
        },
        (first, last) => {
            let end = if last.is_empty() { Some(u64::MAX) } else { number(last).flatten() };
            match (number(first).flatten(), end) {
                (Some(first), Some(end)) if first <= end && first < size => {
                    Wanted::Part(first, end.saturating_add(1).min(size))
                }
                (Some(first), Some(end)) if first <= end => Wanted::Nothing,
                _ => Wanted::Whole,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_is_a_part_nothing_or_not_understood() {
        let of_ten = |text: &str| wanted(Some(text), 10);
        assert_eq!(wanted(None, 10), Wanted::Whole);
        assert_eq!(of_ten("bytes=0-0"), Wanted::Part(0, 1));
        assert_eq!(of_ten("bytes=2-"), Wanted::Part(2, 10));
        assert_eq!(of_ten("bytes=2-99"), Wanted::Part(2, 10));
        assert_eq!(of_ten("bytes=-3"), Wanted::Part(7, 10));
        assert_eq!(of_ten("bytes=-30"), Wanted::Part(0, 10));
        for nothing in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(of_ten(nothing), Wanted::Nothing, "{nothing}");
        }
        for odd in
            ["", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", "bytes=+1-2"]
        {
            assert_eq!(of_ten(odd), Wanted::Whole, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_outside(text in "(bytes=)?[0-9-]{0,30}", size in 0_u64..100) {
            if let Wanted::Part(first, end) = wanted(Some(&text), size) {
                prop_assert!(first < end && end <= size);
            }
        }
    }
}
