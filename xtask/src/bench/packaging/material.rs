//! What the packaging rows are measured with: projects, wheels at fixed versions, and files that are the same in every run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lbx_testkit::stub::Stub;

use super::Cores;
use crate::{Result, process, wheels, workspace};

/// A file that was changed later than this before a build may be changed again without another time of its own, so lbx
/// does not rely on it.
const SETTLED: Duration = Duration::from_millis(2100);

/// Packages of Python alone, about 5 MB of wheels. Together they need nothing that is not among them.
const PURE: [&str; 40] = [
    "anyio==4.9.0",
    "attrs==25.3.0",
    "beautifulsoup4==4.13.4",
    "boltons==25.0.0",
    "cachetools==5.5.2",
    "certifi==2025.8.3",
    "chardet==5.2.0",
    // The last one without a compiled form, which would be taken in its place.
    "charset-normalizer==2.1.1",
    "click==8.1.8",
    "defusedxml==0.7.1",
    "dnspython==2.7.0",
    "docutils==0.21.2",
    "google-auth==2.40.3",
    "h11==0.16.0",
    "httpcore==1.0.9",
    "httplib2==0.22.0",
    "httpx==0.28.1",
    "humanize==4.12.3",
    "idna==3.10",
    "importlib-metadata==8.7.0",
    "jmespath==1.0.1",
    "more-itertools==10.7.0",
    "oauthlib==3.3.1",
    "packaging==25.0",
    "pyasn1==0.6.1",
    "pyasn1-modules==0.4.2",
    "pyjwt==2.10.1",
    "pyparsing==3.2.3",
    "python-dateutil==2.9.0.post0",
    "pytz==2025.2",
    "requests==2.32.5",
    "requests-oauthlib==2.0.0",
    "rsa==4.9.1",
    "six==1.17.0",
    "sniffio==1.3.1",
    "soupsieve==2.7",
    "typing-extensions==4.14.1",
    "tzdata==2025.2",
    "urllib3==2.5.0",
    "zipp==3.23.0",
];

/// Fetches the packages of Python alone, unless that was done before, and returns their folder.
pub(super) fn fetch_pure() -> Result<PathBuf> {
    let folder = workspace::target()?.join("pure-wheels");
    wheels::fill(&folder, &PURE.join("\n"), || wheels::download(&folder, &PURE))?;
    Ok(folder)
}

/// The packages of Python alone, as a requirement file.
pub(super) fn pure_requirements() -> String {
    PURE.join("\n") + "\n"
}

/// A project, and what its builds are given.
pub(super) struct Project {
    pub(super) root: PathBuf,
    pub(super) cache: PathBuf,
    image: String,
    index: String,
    /// `lbx.toml`.
    pub(super) config: String,
}

impl Project {
    /// One without functions. Requirements, if there are any, are those of every function.
    pub(super) fn new(
        scratch: &Path,
        name: &str,
        image: &str,
        index: &Stub,
        requirements: &str,
    ) -> Result<Self> {
        let root = scratch.join("packaging").join(name);
        fs_err::create_dir_all(&root)?;
        let mut config = "[project]\nruntime = \"python3.11\"\n".to_owned();
        if !requirements.is_empty() {
            fs_err::write(root.join("requirements.txt"), requirements)?;
            config += "\n[defaults]\nrequirements = [\"requirements.txt\"]\n";
        }
        let index = format!("http://{}/simple", index.address());
        Ok(Self { root, cache: scratch.join("cache"), image: image.to_owned(), index, config })
    }

    /// Adds a function whose handler is a module like any other, and returns its folder.
    pub(super) fn add_function(&mut self, name: &str, numbers: &mut Numbers) -> Result<PathBuf> {
        self.config += &["\n[functions.", name, "]\nsource = \"functions/", name, "\"\n"].concat();
        let folder = self.root.join("functions").join(name);
        fs_err::create_dir_all(&folder)?;
        fs_err::write(folder.join("handler.py"), module(numbers))?;
        Ok(folder)
    }

    pub(super) fn dist(&self) -> PathBuf {
        self.root.join("dist")
    }

    pub(super) fn zip(&self, name: &str) -> PathBuf {
        self.dist().join(name).with_extension("zip")
    }

    pub(super) fn lbx(&self, cores: Cores, name: &str) -> Result<Command> {
        let mut command = cores.command(workspace::release("lbx")?)?;
        command.args([name, "--image", &self.image]).current_dir(&self.root);
        command.env("LBX_CACHE_DIR", &self.cache).env("PIP_INDEX_URL", &self.index);
        command.env("no_proxy", "127.0.0.1").env_remove("PIP_FIND_LINKS");
        Ok(command)
    }

    pub(super) fn build(&self, cores: Cores) -> Result<()> {
        process::output(self.lbx(cores, "build")?.arg("--quiet")).map(drop)
    }

    /// Writes the configuration, locks the requirements, and builds until the store has all that it can have.
    pub(super) fn settle(&self) -> Result<()> {
        fs_err::write(self.root.join("lbx.toml"), &self.config)?;
        if self.root.join("requirements.txt").exists() {
            process::output(self.lbx(Cores::All, "lock")?.arg("--quiet"))?;
        }
        std::thread::sleep(SETTLED);
        self.build(Cores::All)
    }

    /// Fails unless a build finds that there is nothing to do.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let mut build = self.lbx(Cores::All, "build")?;
        let said = process::text(build.args(["--message-format", "json"]))?;
        if said.contains("\"unchanged\":true") {
            return Ok(());
        }
        Err(format!("nothing was changed in {}, and lbx builds it again", self.root.display()).into())
    }
}

/// Numbers that look random and are the same in every run (xorshift64*).
pub(super) struct Numbers(u64);

impl Numbers {
    /// Another seed, other numbers.
    pub(super) fn new(seed: u64) -> Self {
        // Zero would stay zero, and seeds that are near each other would begin alike.
        let mut numbers = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        numbers.next();
        numbers
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or_default() % end
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len())]
    }

    /// A name as people give them: one word, or two.
    fn name(&mut self) -> String {
        if self.below(3) == 0 { self.word().to_owned() } else { format!("{}_{}", self.word(), self.word()) }
    }
}

const WORDS: [&str; 160] = [
    "account", "action", "address", "amount", "answer", "archive", "asset", "attempt", "backup", "balance",
    "basket", "batch", "body", "branch", "bucket", "buffer", "bundle", "cache", "change", "channel",
    "charge", "choice", "clause", "client", "cluster", "column", "comment", "company", "config", "copy",
    "count", "country", "coupon", "course", "credit", "cycle", "deposit", "detail", "device", "digest",
    "domain", "draft", "edge", "email", "entry", "error", "event", "expense", "export", "factor", "failure",
    "feature", "field", "figure", "file", "filter", "folder", "format", "frame", "gauge", "grade", "group",
    "guest", "handler", "hash", "header", "height", "history", "host", "image", "import", "index", "input",
    "invoice", "issue", "item", "joint", "journal", "key", "kind", "label", "layer", "lease", "ledger",
    "level", "limit", "line", "link", "list", "loan", "logo", "lot", "mail", "margin", "mark", "master",
    "mean", "member", "message", "method", "metric", "mode", "model", "month", "name", "network", "node",
    "note", "notice", "number", "offer", "option", "order", "output", "owner", "pack", "page", "parcel",
    "parent", "partner", "path", "payment", "period", "person", "phone", "photo", "place", "plan", "point",
    "policy", "pool", "price", "product", "profile", "project", "queue", "quota", "rate", "reason",
    "receipt", "record", "region", "report", "request", "result", "role", "rule", "secret", "segment",
    "session", "signal", "source", "status", "stock", "table", "target", "tenant", "ticket", "token",
    "voucher",
];

/// A Python module of 1 to 8 kB, nearly.
pub(super) fn module(numbers: &mut Numbers) -> String {
    let length = 1000 + numbers.below(7000);
    let [what, whose, from] = [numbers.word(), numbers.word(), numbers.word()];
    let mut text = format!(
        "\"\"\"The {what} of each {whose}.\"\"\"\n\n\
         import json\nimport logging\nfrom datetime import datetime\n\n\
         from common.{from} import {}\n\n\
         logger = logging.getLogger(__name__)\n",
        class(numbers)
    );
    while text.len() < length {
        text += &function(numbers);
    }
    text
}

fn class(numbers: &mut Numbers) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    capital(numbers.word()) + &capital(numbers.word())
}

fn function(numbers: &mut Numbers) -> String {
    let [name, first, second] = [numbers.name(), numbers.name(), numbers.name()];
    let [what, whose] = [numbers.word(), numbers.word()];
    let count = 3 + numbers.below(8);
    let statements: String = (0..count).map(|_| statement(numbers, &first)).collect();
    format!(
        "\n\ndef {name}({first}, {second}=None):\n    \"\"\"Returns the {what} of a {whose}.\"\"\"\n\
         {statements}    return {second}\n"
    )
}

fn statement(numbers: &mut Numbers, known: &str) -> String {
    let [one, other] = [numbers.name(), numbers.name()];
    let (word, number) = (numbers.word(), numbers.below(5000));
    match numbers.below(8) {
        0 => format!("    if {known} is None:\n        raise ValueError(\"no {word} without {one}\")\n"),
        1 => format!("    {one} = {known}.get(\"{other}\", {number})\n"),
        2 => format!("    for {one} in {known}.{other}:\n        {one}.{word} += {number}\n"),
        3 => format!("    logger.info(\"{one}: %s\", {known}.{other})\n"),
        4 => format!("    {one} = [{word}.{other} for {word} in {known} if {word}.{one} > {number}]\n"),
        5 => {
            format!("    {one} = {{\"{other}\": {known}, \"{word}\": datetime.now(), \"limit\": {number}}}\n")
        }
        6 => format!("    {one} = {}.from_json(json.loads({known}[\"{other}\"]))\n", class(numbers)),
        _ => format!("    # The {word} counts, not the {one}.\n    {known}.{other} = {number}\n"),
    }
}

/// Writes `count` modules below a folder, a hundred to a package.
pub(super) fn write_modules(folder: &Path, count: usize) -> Result<()> {
    let mut numbers = Numbers::new(1);
    for at in 0..count {
        let package = folder.join(format!("package_{:03}", at / 100));
        if at % 100 == 0 {
            fs_err::create_dir_all(&package)?;
        }
        fs_err::write(package.join(format!("module_{:02}.py", at % 100)), module(&mut numbers))?;
    }
    Ok(())
}

/// Writes a table of about `size` bytes.
pub(super) fn write_table(path: &Path, size: usize, numbers: &mut Numbers) -> Result<()> {
    let mut out = std::io::BufWriter::new(fs_err::File::create(path)?);
    let mut written = 0;
    while written < size {
        let line = format!(
            "{},{},{},{}\n",
            numbers.below(1 << 30),
            numbers.word(),
            numbers.name(),
            numbers.below(1000)
        );
        out.write_all(line.as_bytes())?;
        written += line.len();
    }
    Ok(out.flush()?)
}

/// Writes a file of about `size` bytes that nothing makes smaller.
pub(super) fn write_noise(path: &Path, size: usize, numbers: &mut Numbers) -> Result<()> {
    let bytes: Vec<u8> = (0..size / 8).flat_map(|_| numbers.next().to_le_bytes()).collect();
    Ok(fs_err::write(path, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_the_same_in_every_run_and_differ_from_each_other() {
        let two = |seed| {
            let mut numbers = Numbers::new(seed);
            [module(&mut numbers), module(&mut numbers)]
        };
        assert_eq!(two(1), two(1));
        assert_ne!(two(1)[0], two(1)[1]);
        assert_ne!(two(1)[0], two(2)[0]);
    }

    #[test]
    fn modules_are_of_one_to_nine_kilobytes_and_deflate_as_code_does() {
        let mut numbers = Numbers::new(1);
        let mut deflate = lbx_archive::Compressor::default();
        let (mut size, mut packed) = (0, 0);
        for _ in 0..500 {
            let module = module(&mut numbers);
            assert!((1000..9000).contains(&module.len()), "{}", module.len());
            size += module.len();
            packed += deflate.compress(module.as_bytes()).1.len();
        }
        // Modules of that size in the packages above go to about a third.
        assert!((size / 4..size / 2).contains(&packed), "{packed} of {size}");
    }

    #[test]
    fn noise_does_not_deflate_and_a_table_does() {
        let folder = tempfile::tempdir().unwrap();
        let packed = |path: &Path| {
            let bytes = fs_err::read(path).unwrap();
            (bytes.len(), lbx_archive::compress(&bytes).1.len())
        };
        let (noise, table) = (folder.path().join("noise"), folder.path().join("table"));
        write_noise(&noise, 100_000, &mut Numbers::new(1)).unwrap();
        write_table(&table, 100_000, &mut Numbers::new(1)).unwrap();
        assert_eq!(packed(&noise), (100_000, 100_000));
        let (size, deflated) = packed(&table);
        assert!(size >= 100_000 && deflated < size * 2 / 3, "{deflated} of {size}");
    }
}
