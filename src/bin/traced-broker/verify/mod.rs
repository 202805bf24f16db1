//! `traced-broker verify`: checks one trace in its backend.

mod backend;
mod broken;
mod diagnosis;
mod expectation;
mod json;
mod junit;
mod linked;
mod outcome;
mod request;
mod stray;
mod text;
mod watch;

use std::fs;
use std::path::Path;

use traced_broker::verify::{Page, Picture};

use self::backend::Backend;
use self::expectation::Requirements;
use self::outcome::Outcome;
use self::request::TraceSource;
use crate::args::Verify;
use crate::error::CliError;
use crate::output;

/// Runs the command; returns `true` if the trace is whole.
pub(crate) async fn run(options: Verify) -> Result<bool, CliError> {
    let checked = check(&options).await;
    if let Some(path) = &options.junit {
        write(path, &junit::report(checked.as_ref()))?;
    }
    match checked {
        Ok(outcome) => {
            if let Some(path) = &options.svg {
                write(path, &picture(&outcome))?;
            }
            if let Some(path) = &options.html {
                write(path, &page(&outcome))?;
            }
            output::print_as(options.json, || json::outcome(&outcome), || text::outcome(&outcome))?;
            outcome.error().map_or(Ok(outcome.is_whole()), Err)
        }
        Err(error) => {
            if options.json {
                output::print(&json::unchecked(&error))?;
            }
            Err(error)
        }
    }
}

/// Checks the command line, then sends the request and waits for the trace.
async fn check(options: &Verify) -> Result<Outcome, CliError> {
    let requirements = Requirements::new(options)?;
    let backend = Backend::new(options)?;
    let source = TraceSource::new(options)?;
    let requested = source.send().await?;
    watch::watch(&backend, requested, requirements).await
}

fn picture(outcome: &Outcome) -> String {
    let Some(trace) = outcome.trace() else { return String::new() };
    let picture = Picture::new(trace).within(outcome.traces());
    match outcome.report() {
        Some(report) => picture.report(report).to_string(),
        None => picture.to_string(),
    }
}

fn page(outcome: &Outcome) -> String {
    let Some(trace) = outcome.trace() else { return String::new() };
    let mut remarks = text::remarks(outcome);
    remarks.extend(outcome.error().map(|error| error.to_string()));
    let page = remarks
        .iter()
        .fold(Page::new(trace).within(outcome.traces()), |page, remark| page.remark(outcome.is_whole(), remark));
    match outcome.report() {
        Some(report) => page.report(report).to_string(),
        None => page.to_string(),
    }
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    fs::write(path, text)
        .map_err(|error| CliError::with_source(format_args!("cannot write {}", path.display()), &error))
}
