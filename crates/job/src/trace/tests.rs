use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::{Pipeline, Stream, TraceSettings, line};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_718_824_965, 123_456_789)
}

fn masking(secrets: &[&str]) -> TraceSettings {
    TraceSettings { masked: secrets.iter().map(|&secret| secret.into()).collect(), ..TraceSettings::default() }
}

fn stamped() -> TraceSettings {
    TraceSettings { timestamps: true, ..TraceSettings::default() }
}

/// The trace of these writes, ended.
fn trace(settings: &TraceSettings, writes: &[(Stream, &[u8])]) -> String {
    let mut pipeline = Pipeline::new(settings, 0);
    let mut out = Vec::new();
    for (stream, bytes) in writes {
        pipeline.write(*stream, bytes, now(), &mut out);
    }
    pipeline.finish(now(), &mut out);
    String::from_utf8(out).expect("a trace is valid UTF-8")
}

fn trace_of(settings: &TraceSettings, pieces: &[&[u8]]) -> String {
    trace(settings, &pieces.iter().map(|piece| (Stream::Out, *piece)).collect::<Vec<_>>())
}

#[test]
fn a_secret_is_masked_wherever_the_writes_cut_it() {
    let settings = masking(&["correct horse"]);
    let text = b"say correct horse twice: correct horse.";
    for cut in 0..text.len() {
        let (one, two) = text.split_at(cut);
        assert_eq!(trace_of(&settings, &[one, two]), "say [MASKED] twice: [MASKED].", "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(trace_of(&settings, &bytes), "say [MASKED] twice: [MASKED].");
}

#[test]
fn the_longest_secret_is_masked_and_one_that_begins_inside_a_failed_match_too() {
    assert_eq!(trace_of(&masking(&["abc", "abcdef"]), &[b"abcd", b"efg abcx"]), "[MASKED]g [MASKED]x");
    assert_eq!(trace_of(&masking(&["aab"]), &[b"aa", b"ab"]), "a[MASKED]");
    assert_eq!(trace_of(&masking(&["xab", "abc"]), &[b"xab", b"c"]), "[MASKED]c");
}

#[test]
fn text_that_only_begins_like_a_secret_comes_out_as_soon_as_it_differs_or_ends() {
    let mut pipeline = Pipeline::new(&masking(&["secret-value"]), 0);
    let mut out = Vec::new();
    pipeline.write(Stream::Out, b"a secret", now(), &mut out);
    assert_eq!(out, b"a ");
    pipeline.write(Stream::Out, b"s", now(), &mut out);
    assert_eq!(out, b"a secret");
    pipeline.finish(now(), &mut out);
    assert_eq!(out, b"a secrets");
}

#[test]
fn streams_do_not_complete_each_others_secrets() {
    let writes: [(Stream, &[u8]); 3] = [(Stream::Out, b"sec"), (Stream::Err, b"oh!"), (Stream::Out, b"ret")];
    assert_eq!(trace(&masking(&["secret"]), &writes), "oh![MASKED]");
}

#[test]
fn a_secret_of_several_lines_is_masked_as_a_whole_and_line_by_line() {
    let settings = masking(&["-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n-----END KEY-----\n"]);
    let whole = b"key: -----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n-----END KEY-----.";
    assert_eq!(trace_of(&settings, &[whole]), "key: [MASKED].");
    assert_eq!(trace_of(&settings, &[b"  MIIEvQIBADANBg\r\n", b"  short\r\n"]), "  [MASKED]\r\n  short\r\n");
}

#[test]
fn secrets_are_trimmed_and_empty_ones_mask_nothing() {
    assert_eq!(trace_of(&masking(&["", "  \n", " pass \n"]), &[b"a pass b"]), "a [MASKED] b");
}

#[test]
fn values_of_secret_url_parameters_are_masked() {
    let settings = TraceSettings::default();
    for (text, expected) in [
        ("GET /x?private_token=abc&y=1", "GET /x?private_token=[MASKED]&y=1"),
        ("?a=1&RSS_Token=abc next", "?a=1&RSS_Token=[MASKED] next"),
        ("?X-Amz-Signature=a?X-Amz-Credential=b\n", "?X-Amz-Signature=[MASKED]?X-Amz-Credential=[MASKED]\n"),
        ("?x-amz-security-token=\x1b[0m", "?x-amz-security-token=\x1b[0m"),
        ("private_token=abc", "private_token=abc"),
    ] {
        assert_eq!(trace_of(&settings, &[text.as_bytes()]), expected);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(trace_of(&settings, &bytes), expected, "byte by byte");
    }
}

#[test]
fn tokens_are_masked_behind_their_prefix() {
    let some = TraceSettings { token_prefixes: vec!["acme-".into()], ..TraceSettings::default() };
    assert_eq!(
        trace_of(&some, &[b"glpat-a.b_c=d-e! acme-1 glrt-2 glpat- x"]),
        "glpat-[MASKED]! acme-[MASKED] glrt-2 glpat- x"
    );
    let all = TraceSettings { mask_default_tokens: true, ..TraceSettings::default() };
    assert_eq!(
        trace_of(&all, &[b"glcbt-64_", b"xyz; _gitlab_session=", b"1"]),
        "glcbt-[MASKED]; _gitlab_session=[MASKED]"
    );
}

#[test]
fn what_is_not_utf8_is_replaced_and_a_cut_character_is_not() {
    let settings = TraceSettings::default();
    assert_eq!(trace_of(&settings, &[b"a\xe2", b"\x82", b"\xac!"]), "a\u{20ac}!");
    assert_eq!(trace_of(&settings, &[b"a\xff\xfeb"]), "a\u{fffd}\u{fffd}b");
    assert_eq!(trace_of(&settings, &[b"a\xe2\x82", b"b"]), "a\u{fffd}b");
    assert_eq!(trace_of(&settings, &[b"a\xe2"]), "a\u{fffd}");
}

#[test]
fn every_line_has_its_header() {
    assert_eq!(
        trace(&stamped(), &[(Stream::Runner, b"one\n"), (Stream::Out, b"two\nthree\n"), (Stream::Err, b"four")]),
        "2024-06-19T19:22:45.123456Z 00O one\n\
         2024-06-19T19:22:45.123456Z 01O two\n\
         2024-06-19T19:22:45.123456Z 01O three\n\
         2024-06-19T19:22:45.123456Z 01E four\n"
    );
}

#[test]
fn a_line_in_pieces_keeps_the_time_of_its_first_byte() {
    let mut pipeline = Pipeline::new(&stamped(), 0);
    let mut out = Vec::new();
    pipeline.write(Stream::Out, b"be", now(), &mut out);
    assert!(out.is_empty());
    pipeline.write(Stream::Out, b"gun\n", now() + Duration::from_secs(9), &mut out);
    assert_eq!(String::from_utf8_lossy(&out), "2024-06-19T19:22:45.123456Z 01O begun\n");
}

#[test]
fn a_section_marker_is_a_line_that_its_title_continues() {
    let marker = line::section_start("get_sources", 7, &["collapsed=true"]);
    assert_eq!(
        trace(&stamped(), &[(Stream::Runner, marker.as_bytes()), (Stream::Runner, line::title("Getting").as_bytes())]),
        "2024-06-19T19:22:45.123456Z 00O section_start:7:get_sources[collapsed=true]\r\x1b[0K\n\
         2024-06-19T19:22:45.123456Z 00O+\x1b[0K\x1b[36;1mGetting\x1b[0;m\n"
    );
}

#[test]
fn an_overlong_line_is_let_out_in_parts() {
    let dots = vec![b'.'; 5000];
    let text = trace_of(&stamped(), &[&dots, &dots, b"end\n"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].len(), 32 + 10_000);
    assert!(lines[1].ends_with("01O+end"));
}

#[test]
fn unfinished_lines_can_be_let_out() {
    let mut pipeline = Pipeline::new(&stamped(), 0);
    let mut out = Vec::new();
    for _ in 0..2 {
        pipeline.write(Stream::Out, b".", now(), &mut out);
        pipeline.flush_lines(&mut out);
        pipeline.flush_lines(&mut out);
    }
    assert_eq!(String::from_utf8_lossy(&out), "2024-06-19T19:22:45.123456Z 01O .\n2024-06-19T19:22:45.123456Z 01O+.\n");
}

#[test]
fn the_limit_cuts_between_characters_and_says_so_once() {
    let settings = TraceSettings { output_limit: 10, ..TraceSettings::default() };
    let text = trace_of(&settings, &[b"12345678", "\u{20ac}\u{20ac}".as_bytes(), b"more"]);
    assert_eq!(
        text,
        "12345678\n\x1b[33;1mJob's log exceeded limit of 10 bytes.\n\
         The job goes on, but no more of its output is collected.\x1b[0;m\n"
    );
}

#[test]
fn the_limit_is_reached_by_an_exact_fit_and_counts_what_was_there_before() {
    let settings = TraceSettings { output_limit: 10, ..TraceSettings::default() };
    let mut out = Vec::new();
    Pipeline::new(&settings, 6).write(Stream::Out, b"1234", now(), &mut out);
    assert!(out.starts_with(b"1234\n\x1b[33;1mJob's log"));
    out.clear();
    Pipeline::new(&settings, 90).write(Stream::Out, b"1234", now(), &mut out);
    assert!(out.is_empty(), "the notice stands there already");
}

/// The text of a stamped trace of one stream, as GitLab shows it.
fn without_headers(trace: &str) -> String {
    let mut text = String::new();
    for line in trace.split_inclusive('\n') {
        let (header, rest) = line.split_at(32);
        if header.ends_with('+') {
            text.pop();
        }
        text.push_str(rest);
    }
    text
}

/// Text made of pieces of secrets and of everything that the steps look for, and where it is cut.
fn cut_text() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let piece = prop_oneof![
        "[abc]{1,4}".prop_map(String::into_bytes),
        Just(b"glpat-".to_vec()),
        Just(b"?private_token=".to_vec()),
        Just(b"&PRIVATE_".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just("\u{20ac}".as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..4),
    ];
    let text = prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat());
    (text, prop::collection::vec(0..160_usize, 0..12)).prop_map(|(text, mut cuts)| {
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(text.len()));
        cuts.sort_unstable();
        (text, cuts)
    })
}

fn pieces<'a>(text: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(text.len()));
    starts.zip(ends).map(|(start, end)| &text[start..end]).collect()
}

fn secrets() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[abc]{1,6}", 1..5)
}

proptest! {
    #[test]
    fn the_cuts_between_writes_change_nothing((text, cuts) in cut_text(), secrets in secrets()) {
        let settings = masking(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert_eq!(trace_of(&settings, &pieces(&text, &cuts)), trace_of(&settings, &[&text]));
    }

    #[test]
    fn no_secret_is_in_the_trace((text, cuts) in cut_text(), secrets in secrets()) {
        let settings = masking(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        // What a sanitizer keeps of its own is no part of a secret of small letters a to c.
        let trace = trace_of(&settings, &pieces(&text, &cuts)).replace("glpat-", "").replace("private_token", "");
        for secret in &secrets {
            prop_assert!(!trace.contains(secret.as_str()), "{secret:?} in {trace:?}");
        }
    }

    #[test]
    fn headers_and_continuations_add_nothing_to_the_text((text, cuts) in cut_text(), secrets in secrets()) {
        let plain = masking(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        let stamped = TraceSettings { timestamps: true, ..plain.clone() };
        let shown = without_headers(&trace_of(&stamped, &pieces(&text, &cuts)));
        let expected = trace_of(&plain, &[&text]);
        // The trace ends with a line end, whether the text does or not.
        prop_assert!(shown == expected || shown.strip_suffix('\n') == Some(&expected), "{shown:?} {expected:?}");
    }
}
