//! Text to rules: lines, directives, included files.
//!
//! All mistakes of a file are found, not only the first. A file with one gives no rule at all:
//! where it stood stands [`Action::Quarantine`], because what could not be read may have been the
//! rule that forbids something. [`Policy::has_errors`] is for those who want none of it then.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use casemate_config::{Diagnostic, Flaw, Span, nearest};

use crate::file::{Library, Naming, PolicyFile, PolicyText, naming};
use crate::limits::{MAX_DEPTH, MAX_FILE, MAX_FINDINGS, MAX_LINE, MAX_LOADS, MAX_RULES, MAX_TEXT};
use crate::policy::Policy;
use crate::rule::{Action, Call, Columns, LineFlaw, Place, Rule, Word, call, rule};
use crate::token::Token;

/// Every directive.
const DIRECTIVES: [&str; 3] = ["!include", "!include-dir", "!include-service"];

impl Policy {
    /// Reads the files of a policy, which stand in the order of evaluation.
    pub fn load(files: Vec<PolicyFile>, library: &dyn Library) -> Self {
        let mut loader = Loader::new(library);
        for file in files {
            loader.top(file);
        }
        loader.policy
    }

    /// Reads the files of a test vector: `__main__` and what it includes.
    pub fn load_main(library: &dyn Library) -> Self {
        let main = library.file(Path::new(""), "__main__");
        let main =
            main.unwrap_or_else(|why| PolicyFile { path: "__main__".into(), text: Err(why) });
        let mut loader = Loader::new(library);
        loader.top_named(main, Naming::Counts);
        loader.policy
    }
}

/// In which form lines are read.
#[derive(Clone)]
enum Form {
    /// Five columns and directives.
    Full,
    /// Three columns, for these calls: a file of `!include-service`.
    Service(Call),
}

struct Loader<'a> {
    library: &'a dyn Library,
    policy: Policy,
    /// Index of each document.
    known: HashMap<PathBuf, u32>,
    /// Files being read, outermost first, each with where it was included.
    stack: Vec<(PathBuf, Option<Span>)>,
    /// Directory of the outermost.
    folder: PathBuf,
    loads: usize,
    bytes: usize,
    /// Findings about the outermost file.
    findings: usize,
}

impl<'a> Loader<'a> {
    fn new(library: &'a dyn Library) -> Self {
        Self {
            library,
            policy: Policy::default(),
            known: HashMap::new(),
            stack: Vec::new(),
            folder: PathBuf::new(),
            loads: 0,
            bytes: 0,
            findings: 0,
        }
    }

    fn top(&mut self, file: PolicyFile) {
        let naming = naming(&file.path);
        self.top_named(file, naming);
    }

    /// One file of the policy with all it includes: all of its rules, or its quarantine.
    fn top_named(&mut self, file: PolicyFile, naming: Naming) {
        let first = self.policy.rules.len();
        let path = file.path.clone();
        self.folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        self.findings = 0;
        if naming == Naming::Counts {
            self.read(file, None, &Form::Full);
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let message = format!("`{name}` is no name for a policy file");
            let error = Diagnostic::error(message)
                .hint("lower-case letters, digits, `_`, `.` and `-`, and .policy at the end");
            let document = self.document(&path, String::new());
            self.found(error.at(Span::new(document, 0..0)));
        }
        if self.findings > 0 {
            let document = self.document(&path, String::new());
            self.policy.rules.truncate(first);
            self.policy.rules.push(Rule {
                service: None,
                argument: None,
                source: Token::Everything,
                target: Token::Everything,
                action: Action::Quarantine,
                place: Place { span: Span::new(document, 0..0), line: 1 },
            });
            self.policy.quarantined.push(path);
        }
    }

    /// Index of the document with this path.
    fn document(&mut self, path: &Path, text: String) -> u32 {
        if let Some(index) = self.known.get(path) {
            return *index;
        }
        let index = u32::try_from(self.policy.documents.len()).unwrap_or(u32::MAX);
        self.policy.documents.push(PolicyText { path: path.into(), text });
        self.known.insert(path.into(), index);
        index
    }

    fn found(&mut self, diagnostic: Diagnostic) {
        self.findings += 1;
        self.policy.diagnostics.push(diagnostic);
    }

    /// Whether the file is bad enough to stop reading it.
    fn given_up(&self) -> bool {
        self.findings >= MAX_FINDINGS
    }

    /// Reads one file, included at `by` or outermost.
    fn read(&mut self, file: PolicyFile, by: Option<Span>, form: &Form) {
        let text = match file.text {
            Ok(text) if text.len() <= MAX_FILE => text,
            other => {
                let why =
                    other.err().unwrap_or_else(|| format!("it has more than {MAX_FILE} bytes"));
                let document = self.document(&file.path, String::new());
                let error = Diagnostic::error(format!("could not read {}", file.path.display()))
                    .at(by.unwrap_or(Span::new(document, 0..0)));
                return self.found(error.hint(why));
            }
        };
        if let Some((index, _)) = self.stack.iter().enumerate().find(|(_, s)| s.0 == file.path) {
            let mut error = Diagnostic::error(format!("{} includes itself", file.path.display()));
            error.place = by;
            for (path, place) in &self.stack[index + 1..] {
                if let Some(place) = place {
                    error = error.related(*place, format!("here {} is included", path.display()));
                }
            }
            return self.found(error);
        }
        self.loads += 1;
        self.bytes += text.len();
        if self.stack.len() >= MAX_DEPTH || self.loads > MAX_LOADS || self.bytes > MAX_TEXT {
            let mut error = Diagnostic::error("files are included too often or too deep");
            error.place = by;
            return self.found(error.hint(format!(
                "{MAX_DEPTH} files within each other, {MAX_LOADS} files and {MAX_TEXT} bytes in \
                 all are the limits"
            )));
        }
        let document = self.document(&file.path, text);
        // Taken out while it is read, so that what it includes can be added to the documents.
        let text = std::mem::take(&mut self.policy.documents[document as usize].text);
        self.stack.push((file.path, by));
        self.lines(document, &text, form);
        self.stack.pop();
        self.policy.documents[document as usize].text = text;
    }

    fn lines(&mut self, document: u32, text: &str, form: &Form) {
        let mut start = 0;
        for (number, line) in (1..).zip(text.split('\n')) {
            let place = |range: std::ops::Range<usize>| {
                Span::new(document, start + range.start..start + range.end)
            };
            let (read, lead) = match form {
                Form::Service(_) if line.contains(['$', ',']) => {
                    let lead = words(line).first().map(|(range, _)| range.start);
                    (Cow::Owned(modern(line)), lead)
                }
                _ => (Cow::Borrowed(line), None),
            };
            let begin = Place { span: place(0..0), line: number };
            if line.len() > MAX_LINE {
                let error = Diagnostic::error(format!("a line has more than {MAX_LINE} bytes"));
                self.found(error.at(place(0..1)));
            } else if let Err((flaw, range)) = self.line(&read, lead, form, begin) {
                let range = flaw.range.clone().map_or(range.clone(), |within| {
                    range.start + within.start..range.start + within.end
                });
                self.found(
                    Diagnostic { hint: flaw.hint, ..Diagnostic::error(flaw.message) }
                        .at(place(range)),
                );
            }
            if self.given_up() {
                let error =
                    Diagnostic::warning("there are too many mistakes here; the rest is not read");
                self.policy.diagnostics.push(error.at(place(0..line.len())));
                return;
            }
            start += line.len() + 1;
        }
    }

    /// Reads one line that begins at `place`. `lead` is the first byte that was no blank before the
    /// line was made modern, where it was: only there comments and directives begin.
    fn line(
        &mut self,
        line: &str,
        lead: Option<usize>,
        form: &Form,
        place: Place,
    ) -> Result<(), LineFlaw> {
        let words: Vec<Word<'_>> = words(line);
        let (Some(first), Some(last)) = (words.first(), words.last()) else {
            return match lead {
                Some(lead) => Err((Flaw::new("a comma alone is no rule"), lead..lead + 1)),
                None => Ok(()),
            };
        };
        let leads = lead.is_none_or(|lead| lead == first.0.start);
        if first.1.starts_with('#') && leads {
            return Ok(());
        }
        let whole = first.0.start..last.0.end;
        let offset = place.span.start as usize;
        let here = |range: &std::ops::Range<usize>| {
            Span::new(place.span.source, offset + range.start..offset + range.end)
        };
        let place = Place { span: here(&whole), ..place };
        if first.1.starts_with('!') && leads {
            return self.directive(&words, form, |range| here(&range));
        }
        let (wanted, rest): (Call, &[Word<'_>]) = match (form, words.as_slice()) {
            (Form::Full, [service, argument, rest @ ..]) if rest.len() >= 3 => {
                (call(service, argument)?, rest)
            }
            (Form::Service(call), rest) if rest.len() >= 3 => (call.clone(), rest),
            (Form::Full, _) => {
                let flaw = Flaw::new(format!("a rule has five columns, here are {}", words.len()));
                return Err(match first.1.split_once('+') {
                    Some((service, argument)) => {
                        let columns = format!("{service} +{argument}");
                        let hint = format!("the argument is a column of its own: {columns}");
                        (flaw.hint(hint), first.0.clone())
                    }
                    None => (flaw.hint("SERVICE ARGUMENT SOURCE TARGET ACTION"), whole),
                });
            }
            (Form::Service(_), _) => {
                let flaw = Flaw::new(format!("a rule has three columns, here are {}", words.len()));
                return Err((flaw.hint("SOURCE TARGET ACTION"), whole));
            }
        };
        let [source, target, action, parameters @ ..] = rest else { return Ok(()) };
        if self.policy.rules.len() >= MAX_RULES {
            // Once for each file: nothing behind it can be taken either.
            self.findings = self.findings.max(MAX_FINDINGS - 1);
            return Err((Flaw::new(format!("there are more than {MAX_RULES} rules")), whole));
        }
        let columns = Columns {
            source: source.clone(),
            target: target.clone(),
            action: action.clone(),
            parameters,
        };
        self.policy.rules.push(rule(wanted, &columns, place)?);
        Ok(())
    }

    fn directive(
        &mut self,
        words: &[Word<'_>],
        form: &Form,
        here: impl Fn(std::ops::Range<usize>) -> Span,
    ) -> Result<(), LineFlaw> {
        let Some(((range, directive), parameters)) = words.split_first() else { return Ok(()) };
        let whole = range.start..words.last().map_or(range.end, |word| word.0.end);
        let wrong = |usage: &str| {
            (Flaw::new(format!("`{directive}` is not written so")).hint(usage), whole.clone())
        };
        let service = matches!(form, Form::Service(_));
        match *directive {
            "!include" => {
                let [(at, name)] = parameters else { return Err(wrong("write !include FILE")) };
                self.include(name, form, at.clone(), here(at.clone()))
            }
            "!include-dir" if !service => {
                let [(at, name)] = parameters else { return Err(wrong("write !include-dir DIR")) };
                self.include_folder(name, at.clone(), here(at.clone()))
            }
            "!include-service" if !service => {
                let [service, argument, (at, name)] = parameters else {
                    return Err(wrong("write !include-service SERVICE ARGUMENT FILE"));
                };
                let form = Form::Service(call(service, argument)?);
                self.include(name, &form, at.clone(), here(at.clone()))
            }
            _ => {
                let flaw = Flaw::new(format!("`{directive}` is no directive"));
                let flaw = if service {
                    flaw.hint("in a file of !include-service only !include may stand")
                } else if directive.starts_with("!compat") {
                    flaw.hint(
                        "policies of before 4.1 are not read; !include-service takes their files",
                    )
                } else {
                    match nearest(&directive[1..], DIRECTIVES.iter().map(|known| &known[1..])) {
                        Some(known) => flaw.hint(format!("did you mean `!{known}`?")),
                        None => flaw.hint(format!("directives are {}", DIRECTIVES.join(", "))),
                    }
                };
                Err((flaw, range.clone()))
            }
        }
    }

    fn include(
        &mut self,
        name: &str,
        form: &Form,
        at: std::ops::Range<usize>,
        by: Span,
    ) -> Result<(), LineFlaw> {
        match self.library.file(&self.folder, name) {
            Ok(file) => self.read(file, Some(by), form),
            Err(why) => {
                return Err((Flaw::new(format!("could not include `{name}`")).hint(why), at));
            }
        }
        Ok(())
    }

    fn include_folder(
        &mut self,
        name: &str,
        at: std::ops::Range<usize>,
        by: Span,
    ) -> Result<(), LineFlaw> {
        let mut files = match self.library.folder(&self.folder, name) {
            Ok(files) => files,
            Err(why) => {
                return Err((Flaw::new(format!("could not include `{name}`")).hint(why), at));
            }
        };
        files.retain(|file| naming(&file.path) != Naming::Ignored);
        files.sort_by(|a, b| a.path.file_name().cmp(&b.path.file_name()));
        for file in files {
            if naming(&file.path) == Naming::Invalid {
                let shown = file.path.display();
                let error = Diagnostic::error(format!("{shown} has no name for a policy file"));
                self.found(
                    error.at(by).hint(
                        "lower-case letters, digits, `_`, `.` and `-`, and .policy at the end",
                    ),
                );
            } else {
                self.read(file, Some(by), &Form::Full);
            }
            if self.given_up() {
                break;
            }
        }
        Ok(())
    }
}

/// A line of a file of `!include-service` in today's signs, and as many bytes, so that places stay.
fn modern(line: &str) -> String {
    line.replace("$include:", "!include ").replace('$', "@").replace(',', " ")
}

/// The words of a line. Blank is what Unicode calls white space, and the four separators of ASCII
/// (0x1c to 0x1f): what the language's first implementation splits at.
fn words(line: &str) -> Vec<Word<'_>> {
    let blank = |letter: char| letter.is_whitespace() || ('\x1c'..='\x1f').contains(&letter);
    let mut words = Vec::with_capacity(8);
    let mut start = None;
    for (at, letter) in line.char_indices() {
        match (blank(letter), start) {
            (true, Some(begin)) => {
                words.push((begin..at, &line[begin..at]));
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    if let Some(begin) = start {
        words.push((begin..line.len(), &line[begin..]));
    }
    words
}
