//! Names of drafts: files that are being received, beside the one that they will be. A draft's name follows from the name of
//! its file alone, so that the next transfer finds what a killed one left.

use remotely_proto::fs::NAME_MAX;

/// Between the name of the file and the mark.
const INFIX: &[u8] = b".remotely-";
/// Hexadecimal digits of the mark.
const MARK: usize = 12;
/// Longest part of the file's name that fits.
const STEM_MAX: usize = NAME_MAX - 1 - INFIX.len() - MARK;
/// So many drafts of one file can be under way at once.
pub(crate) const SLOTS: u8 = 8;

/// `.NAME.remotely-MARK`. The mark tells apart long names whose beginnings are the same.
pub(crate) fn draft_name(name: &[u8], slot: u8) -> Vec<u8> {
    let stem = &name[..name.len().min(STEM_MAX)];
    [b".", stem, INFIX, mark(name, slot).as_bytes()].concat()
}

/// Whether a name is one of these. Such files are neither sent nor made on behalf of a sender.
pub(crate) fn is_draft_name(name: &[u8]) -> bool {
    let Some((front, end)) = name.split_last_chunk::<MARK>() else { return false };
    let Some(stem) = front.strip_prefix(b".").and_then(|front| front.strip_suffix(INFIX)) else { return false };
    let hexadecimal = end.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    // The mark of a name that was cut cannot be made again.
    hexadecimal && (stem.len() == STEM_MAX || (0..SLOTS).any(|slot| mark(stem, slot).as_bytes() == end))
}

fn mark(name: &[u8], slot: u8) -> String {
    let hash = blake3::Hasher::new().update(name).update(&[0, slot]).finalize();
    hash.to_hex()[..MARK].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_are_told_from_other_names() {
        for name in [&b"a"[..], b"\xff", b".hidden", b"a.remotely-b", &[b'x'; 255], &[b'x'; STEM_MAX]] {
            for slot in 0..SLOTS {
                let draft = draft_name(name, slot);
                assert!(draft.len() <= NAME_MAX);
                assert!(is_draft_name(&draft), "{draft:?}");
                assert!(!is_draft_name(name));
            }
        }
        assert_ne!(draft_name(&[b'x'; 255], 0), draft_name(&[b'x'; 254], 0));
        assert!(!is_draft_name(b".a.remotely-0123456789ab"));
        assert!(!is_draft_name(b".a.remotely-0123456789AB"));
        assert!(!is_draft_name(b""));
    }
}
