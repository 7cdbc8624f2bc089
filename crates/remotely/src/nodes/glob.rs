//! Wildcards: `*` for any characters, `?` for one. Used for known hosts, groups, and the files that an ssh configuration
//! includes. Pure, and linear in practice: it goes back to the last `*` only.

/// Whether all of `name` is what `pattern` stands for.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Behind the last `*`, and up to where it was taken to reach.
    let mut again: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), again) {
            (Some('*'), _) => {
                p += 1;
                again = Some((p, n));
            }
            (Some(c), _) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            (_, Some((behind, reached))) => {
                p = behind;
                n = reached + 1;
                again = Some((behind, n));
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_is_anything_and_a_question_mark_one_character() {
        let yes = [
            ("*", ""),
            ("web*", "web"),
            ("web*", "web12"),
            ("w?b", "wéb"),
            ("*a*b", "xaxbab"),
            ("**", "x"),
            ("a", "a"),
        ];
        for (pattern, name) in yes {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "a"), ("web?", "web"), ("*a", "ab"), ("a*b*c", "abdb"), ("a", "ab")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(50), &"a".repeat(49)));
    }
}
