//! `traced-broker verify`: one trace, from the backend that has it.

mod backend;
mod diagnosis;
mod expectation;
mod json;
mod judge;
mod junit;
mod linked;
mod request;
mod stray;
mod text;
mod watch;

use std::fs;
use std::path::Path;

use traced_broker::verify::{Page, Picture};

use self::backend::Backend;
use self::expectation::Demands;
use self::judge::Case;
use self::request::Subject;
use crate::args::Verify;
use crate::screen;
use crate::trouble::Trouble;

/// Whether the trace is whole.
pub(crate) async fn run(options: Verify) -> Result<bool, Trouble> {
    let checked = check(&options).await;
    if let Some(path) = &options.junit {
        write(path, &junit::report(checked.as_ref()))?;
    }
    match checked {
        Ok(case) => {
            if let Some(path) = &options.svg {
                write(path, &picture(&case))?;
            }
            if let Some(path) = &options.html {
                write(path, &page(&case))?;
            }
            if options.json {
                screen::print(&json::case(&case))?;
            } else {
                screen::print(&text::case(&case))?;
            }
            case.trouble().map_or(Ok(case.is_whole()), Err)
        }
        Err(trouble) => {
            if options.json {
                screen::print(&json::unchecked(&trouble))?;
            }
            Err(trouble)
        }
    }
}

/// What can be wrong with the command line is found before anything is sent.
async fn check(options: &Verify) -> Result<Case, Trouble> {
    let demands = Demands::of(options)?;
    let backend = Backend::of(options)?;
    let subject = Subject::of(options)?;
    let asked = subject.send().await?;
    watch::watch(&backend, asked, demands).await
}

fn picture(case: &Case) -> String {
    let Some(trace) = case.trace() else { return String::new() };
    let picture = Picture::new(trace).within(case.traces());
    match case.report() {
        Some(report) => picture.report(report).to_string(),
        None => picture.to_string(),
    }
}

fn page(case: &Case) -> String {
    let Some(trace) = case.trace() else { return String::new() };
    let mut remarks = text::remarks(case);
    remarks.extend(case.trouble().map(|trouble| trouble.to_string()));
    let page = remarks
        .iter()
        .fold(Page::new(trace).within(case.traces()), |page, remark| page.remark(case.is_whole(), remark));
    match case.report() {
        Some(report) => page.report(report).to_string(),
        None => page.to_string(),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    fs::write(path, text).map_err(|error| Trouble::because(format_args!("cannot write {}", path.display()), &error))
}
