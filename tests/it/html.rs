//! `lbx build --html`: the page, as Chromium shows it.

use std::path::Path;

use lbx_testkit::command::{Home, run};

use crate::locks::{command, succeeds, wheel, wheels};
use crate::support::{HEAD, image};

/// What a parser of HTML would take for the end of a script and an image, if it ever saw it.
const HOSTILE: &str = "x</script><img src=x onerror=document.title='taken'>.txt";

/// The size of the window.
const WINDOW: (u32, u32) = (1280, 900);

/// Starts Chromium with a profile of its own, on a page with this after its `#`.
fn chromium(home: &Home, options: &[&str], page: &Path, fragment: &str) -> String {
    let profile = tempfile::tempdir().expect("a directory");
    let mut chromium = home.command("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    chromium.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    chromium.args(["--disable-dev-shm-usage", "--hide-scrollbars", "--virtual-time-budget=3000"]);
    chromium.arg(format!("--window-size={},{}", WINDOW.0, WINDOW.1));
    chromium.arg(format!("--user-data-dir={}", profile.path().display())).args(options);
    let ran = run(chromium.arg(format!("file://{}#{fragment}", page.display())));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stdout
}

/// The page as it is once its script has run.
fn shown(home: &Home, page: &Path, fragment: &str) -> String {
    chromium(home, &["--dump-dom"], page, fragment)
}

/// The element that begins so, up to the end of the next one of this kind.
fn part<'d>(document: &'d str, begin: &str, end: &str) -> &'d str {
    let (_, rest) = document.split_once(begin).unwrap_or_else(|| panic!("{begin} is not in {document}"));
    rest.split_once(end).expect("an end").0
}

#[test]
fn the_page_shows_what_is_in_the_zip_finds_files_and_says_what_has_changed() {
    let Some(image) = image() else { return };
    let (_folder, index) = wheels(&[wheel("one", "1.0"), wheel("one", "2.0"), wheel("two", "2.0")]);
    let home = Home::new();
    home.write(&format!("src/{HOSTILE}"), "harmless");
    home.write("src/app.py", "A = 1\n");
    let toml = "[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n";
    home.write("lbx.toml", format!("{HEAD}{toml}"));
    let build = |requirements: &str, options: &[&str]| {
        home.write("r.txt", requirements);
        succeeds(&mut command(&home, "lock", &image, &index));
        succeeds(command(&home, "build", &image, &index).args(options));
    };
    build("one==1.0\n", &[]);
    build("one==2.0\ntwo\n", &["--html", "page/all.html"]);
    let zip = |path: &str| fs_err::read(home.project().join(path)).expect("a zip");
    build("one==2.0\ntwo\n", &["-o", "without.zip"]);
    assert!(zip("dist/app.zip") == zip("without.zip"), "the page changes no byte of the zip");
    let page = home.project().join("page/all.html");

    let document = shown(&home, &page, "");
    assert!(document.contains("<title>What lbx has built</title>"), "nothing has run that must not");
    let map = part(&document, "<div id=\"map\">", "<div id=\"tables\">");
    for label in ["one 2.0", "two 2.0", "own: src"] {
        assert!(map.contains(&format!("<span>{label}")), "{label} has no tile: {map}");
    }
    assert!(!document.contains("id=\"matches\""));
    let files = part(&document, "<h2>Largest files</h2>", "</section>");
    let text = "x&lt;/script&gt;&lt;img src=x onerror=document.title='taken'&gt;.txt";
    assert!(files.contains(text), "the name is text: {files}");
    let comparison = part(&document, "id=\"comparison\"", "</section>");
    assert!(comparison.contains("1.0 → 2.0") && comparison.contains("+ 2.0"), "{comparison}");

    let document = shown(&home, &page, "search=two.py");
    let matches = part(&document, "id=\"matches\"", "</section>");
    assert!(
        matches.contains("1 file found: 16 B unpacked") && matches.contains("<mark>two.py</mark>"),
        "{matches}"
    );
    assert!(!matches.contains("app.py"), "{matches}");
    let map = part(&document, "<div id=\"map\">", "<div id=\"tables\">");
    let missed = map.split("<button").find(|tile| tile.contains("<span>own: src")).expect("a tile");
    assert!(missed.contains(" miss\""), "{missed}");

    let picture = home.project().join("picture.png");
    chromium(&home, &[&format!("--screenshot={}", picture.display())], &page, "");
    let picture = fs_err::read(picture).expect("a picture");
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.len() > 10_000, "{} bytes", picture.len());
    let number = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((number(16), number(20)), WINDOW);
}

#[test]
fn a_build_with_nothing_changed_writes_the_page_too_and_is_no_source() {
    let home = Home::new();
    home.write("src/app.py", "A = 1\n");
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\n"));
    let page = home.project().join("src/page.html");
    let build = || {
        let ran = run(&mut crate::support::lbx(&home, &["build", "--html", "src/page.html"]));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        fs_err::read(home.project().join("dist/app.zip")).expect("a zip")
    };
    let first = build();
    assert!(fs_err::read_to_string(&page).expect("a page").contains("\"previous\":null"));
    fs_err::remove_file(&page).expect("removed");
    assert!(build() == first && build() == first);
    let text = fs_err::read_to_string(&page).expect("a page");
    assert!(text.contains("\"previous\":{") && !text.contains("src/page.html"));
    assert!(text.contains("[\"app.py\",0,6,"), "files have their sizes");
}

/// What the page says of itself to a script of ours, which its own policy would not let run.
fn measured(home: &Home, page: &Path, options: &[&str], fragment: &str, expression: &str) -> String {
    let text = fs_err::read_to_string(page).expect("a page");
    let policy = part(&text, "<meta http-equiv=\"Content-Security-Policy\"", ">").to_owned();
    let copy = home.root().join("measured.html");
    let script =
        format!("<script>addEventListener('load', () => {{ document.title = {expression}; }});</script>");
    fs_err::write(&copy, text.replace(&policy, "") + &script).expect("written");
    let document = chromium(home, &[options, &["--dump-dom"]].concat(), &copy, fragment);
    part(&document, "<title>", "</title>").replace("&amp;", "&")
}

#[test]
fn the_page_fits_narrow_and_dark_screens_and_what_is_small_can_be_opened() {
    let home = Home::new();
    home.write("src/app.py", "A = 1\n".repeat(200_000));
    for at in 0..300 {
        home.write(&format!("src/a_folder_with_a_long_name/and_another_one_{at}/module_{at}.py"), "A = 1\n");
    }
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\n"));
    let ran = run(&mut crate::support::lbx(&home, &["build", "--html", "page.html"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let page = home.project().join("page.html");
    let overflow = "document.documentElement.scrollWidth + ' of ' + innerWidth";
    let narrow = measured(&home, &page, &["--window-size=390,800"], "", overflow);
    let (width, window) = narrow.split_once(" of ").expect("two numbers");
    assert!(width == window && width.parse::<u32>().expect("a number") <= 500, "{narrow}");
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = measured(&home, &page, &[], "", ground);
    let dark = measured(&home, &page, &["--blink-settings=preferredColorScheme=0"], "", ground);
    assert_eq!((light.as_str(), dark.as_str()), ("rgb(246, 247, 249)", "rgb(18, 21, 26)"));

    let place = "in=own%3A+src&in=a_folder_with_a_long_name%2F";
    let all = "[...document.querySelectorAll('#map > .tile')].map((tile) => tile.title).join('|')";
    let tiles = measured(&home, &page, &["--window-size=500,800"], place, all);
    assert!(tiles.contains("and_another_one_0/"), "{tiles}");
    let root = measured(&home, &page, &[], "in=own%3A+src", all);
    assert!(root.contains("app.py"), "{root}");
    let escape = "(() => { at('search').value = 'x'; at('search').dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true })); \
        return at('search').value + '|' + state.place.length; })()";
    assert_eq!(
        measured(&home, &page, &[], "in=own%3A+src", escape),
        "|1",
        "the field is emptied, and the place kept"
    );
}

#[test]
fn tiles_that_are_too_small_are_one_that_opens() {
    let home = Home::new();
    home.write("src/app.py", "A = 1\n".repeat(500_000));
    for at in 0..40 {
        home.write(&format!("src/small_{at}.py"), "A = 1\n");
    }
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\n"));
    let ran = run(&mut crate::support::lbx(&home, &["build", "--html", "page.html"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let page = home.project().join("page.html");
    let click = "(() => { [...document.querySelectorAll('.tile')].find((tile) => tile.title.startsWith('40 others')).click(); \
        return at('crumbs').textContent + '|' + document.querySelectorAll('#map > .tile').length + '|' + location.hash; })()";
    let opened = measured(&home, &page, &[], "in=own%3A+src", click);
    let parts: Vec<&str> = opened.split('|').collect();
    assert!(parts[0].contains("40 others 240 B unpacked") && parts[1] == "40", "{opened}");
    // The address leads there again, and where it does not, to what is above.
    let crumbs = "at('crumbs').textContent";
    assert!(
        measured(&home, &page, &[], parts[2].trim_start_matches('#'), crumbs).contains("40 others"),
        "{opened}"
    );
    let gone = measured(&home, &page, &[], "in=own%3A+src&in=9+others", crumbs);
    assert!(gone.contains("own: src") && !gone.contains("others"), "{gone}");
}

#[test]
fn what_is_not_published_has_a_page_too() {
    let home = Home::new();
    home.write("src/.env", "A=1\n");
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\n"));
    let ran = run(&mut crate::support::lbx(&home, &["build", "--html", "page.html"]));
    assert_eq!(ran.code, 8, "{}", ran.stderr);
    assert!(ran.stderr.contains("lbx: page.html shows what was not published\n"), "{}", ran.stderr);
    assert!(!home.project().join("dist/app.zip").exists());
    let document = shown(&home, &home.project().join("page.html"), "");
    let findings = part(&document, "id=\"findings\"", "</section>");
    assert!(findings.contains("its name is one of files with credentials"), "{findings}");
}

#[test]
fn a_page_replaces_nothing_but_a_page_and_waits_for_nobody() {
    let home = Home::new();
    home.write("src/app.py", "A = 1\n");
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\n"));
    let build = |page: &str| run(&mut crate::support::lbx(&home, &["build", "--html", page]));
    assert_eq!((build("page.html").code, build("page.html").code), (0, 0));
    for other in ["src/app.py", "dist/app.zip", "dist/new.zip", "lbx.toml"] {
        let ran = build(other);
        assert!(ran.code == 2 && ran.stderr.contains("which is no page of lbx's"), "{other}: {}", ran.stderr);
    }
    assert_eq!(fs_err::read_to_string(home.project().join("src/app.py")).expect("text"), "A = 1\n");
    // What is in the place of the report may be anything.
    let report = home.project().join("dist/report.json");
    fs_err::remove_file(&report).expect("removed");
    lbx_testkit::command::succeed(std::process::Command::new("mkfifo").arg(&report));
    assert_eq!(run(&mut crate::support::lbx(&home, &["explain", "app.py"])).code, 3);
    home.write("src/app.py", "A = 2\n");
    assert_eq!(build("page.html").code, 0);
}
