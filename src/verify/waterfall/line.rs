//! A line of styled text that never exceeds its width.

use crate::verify::text::{columns, fit, printable};

/// The role of text, which determines its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    /// The name of a span that hands over or handles messages, or the trace's id.
    Strong,
    /// Lines, axis and notes.
    Faint,
    /// The time in a queue.
    Wait,
    Good,
    Bad,
    /// A service, by its order of appearance.
    Service(usize),
}

impl Style {
    /// Returns the codes of "Select Graphic Rendition" (ECMA-48, 8.3.117), from the sixteen colours
    /// that follow the user's theme.
    fn codes(self) -> &'static str {
        // Red is reserved for faults and yellow for waiting.
        const SERVICES: [&str; 6] = ["36", "32", "35", "34", "96", "95"];
        match self {
            Self::Plain => "",
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Wait => "33",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Service(position) => SERVICES[position % SERVICES.len()],
        }
    }
}

/// The characters of a drawing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Glyphs {
    pub(super) ascii: bool,
    pub(super) ellipsis: char,
    pub(super) replacement: char,
    pub(super) dot: &'static str,
    pub(super) rule: &'static str,
    pub(super) good: &'static str,
    pub(super) bad: &'static str,
    pub(super) to: &'static str,
    pub(super) from: &'static str,
    /// The tree, two columns each.
    pub(super) stem: &'static str,
    pub(super) tee: &'static str,
    pub(super) corner: &'static str,
    pub(super) wait: &'static str,
    /// The bars, one column each.
    pub(super) full: char,
    pub(super) left_half: char,
    pub(super) right_half: char,
    pub(super) instant: char,
    pub(super) open: char,
    pub(super) queue: char,
    pub(super) retry: char,
    pub(super) earlier: char,
}

impl Glyphs {
    pub(super) const UNICODE: Self = Self {
        ascii: false,
        ellipsis: '…',
        replacement: '�',
        dot: "·",
        rule: "─",
        good: "✓",
        bad: "✗",
        to: "↳",
        from: "↰",
        stem: "│ ",
        tee: "├ ",
        corner: "└ ",
        wait: "┊ ",
        full: '█',
        left_half: '▌',
        right_half: '▐',
        instant: '▏',
        open: '╌',
        queue: '░',
        retry: '┄',
        earlier: '‹',
    };

    pub(super) const ASCII: Self = Self {
        ascii: true,
        ellipsis: '~',
        replacement: '?',
        dot: "-",
        rule: "-",
        good: "+",
        bad: "x",
        to: "->",
        from: "<-",
        stem: "| ",
        tee: "|-",
        corner: "`-",
        wait: ": ",
        full: '#',
        left_half: '#',
        right_half: '#',
        instant: '|',
        open: '>',
        queue: '.',
        retry: '-',
        earlier: '<',
    };
}

impl Glyphs {
    /// Returns `text` without characters that a terminal would act upon or, in ASCII, could not
    /// show.
    pub(super) fn printable(&self, text: &str) -> String {
        if self.ascii {
            // These two occur in this library's own text.
            let text = text.replace('µ', "u").replace('×', "x");
            printable(&text, true, self.replacement)
        } else {
            printable(text, false, self.replacement)
        }
    }

    /// Cuts `text` to `width` columns.
    pub(super) fn fit(&self, text: &str, width: usize) -> String {
        fit(text, width, self.ellipsis)
    }
}

/// A line, collected in styled pieces.
#[derive(Debug)]
pub(super) struct Line {
    pieces: Vec<(Style, String)>,
    used: usize,
    width: usize,
    glyphs: &'static Glyphs,
}

impl Line {
    pub(super) const fn new(width: usize, glyphs: &'static Glyphs) -> Self {
        Self { pieces: Vec::new(), used: 0, width, glyphs }
    }

    /// Adds text, cut at the end of the line.
    pub(super) fn push(&mut self, style: Style, text: &str) {
        let fitted = self.glyphs.fit(&self.glyphs.printable(text), self.width - self.used);
        self.used += columns(&fitted);
        self.pieces.push((style, fitted));
    }

    /// Adds spaces until this many columns are used.
    pub(super) fn pad_to(&mut self, column: usize) {
        let missing = column.min(self.width).saturating_sub(self.used);
        self.push(Style::Plain, &" ".repeat(missing));
    }

    /// Returns the number of columns used.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Returns the number of columns left.
    pub(super) const fn left(&self) -> usize {
        self.width - self.used
    }

    /// Returns the line without trailing white space, in colour if requested.
    pub(super) fn finish(mut self, colour: bool) -> String {
        while let Some((_, text)) = self.pieces.last_mut() {
            text.truncate(text.trim_end().len());
            if !text.is_empty() {
                break;
            }
            self.pieces.pop();
        }
        let mut line = String::new();
        for (style, text) in self.pieces {
            let codes = style.codes();
            if colour && !codes.is_empty() && !text.trim().is_empty() {
                line.push_str(&format!("\u{1b}[{codes}m{text}\u{1b}[0m"));
            } else {
                line.push_str(&text);
            }
        }
        line
    }
}
