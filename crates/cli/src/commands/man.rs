//! `brigade man`: one page for the command and all its subcommands, made from the grammar.

use std::io::{self, Write as _};

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::{args, exit};

/// The page, in roff.
pub(super) fn page() -> io::Result<Vec<u8>> {
    let mut grammar = args::grammar();
    // Gives the subcommands their full names for the usage lines.
    grammar.build();
    let mut page = Vec::new();
    let man = Man::new(grammar.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for command in below(&grammar) {
        render_subcommand(command.clone(), &mut page)?;
        for command in below(command) {
            render_subcommand(command.clone(), &mut page)?;
        }
    }
    exit_status().to_writer(&mut page)?;
    Ok(page)
}

/// The subcommands, without the one that clap adds.
fn below(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|command| command.get_name() != "help")
}

/// A subcommand as a section of the page: its own sections become subsections.
fn render_subcommand(command: clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    let title = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_uppercase();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command);
    let mut sections = Vec::new();
    man.render_description_section(&mut sections)?;
    man.render_synopsis_section(&mut sections)?;
    man.render_options_section(&mut sections)?;
    let sections = String::from_utf8_lossy(&sections).replace(".SH ", ".SS ");
    writeln!(page, ".SH \"{title}\"")?;
    page.write_all(sections.as_bytes())?;
    examples(&help).to_writer(page)
}

/// The examples that `--help` ends with, line by line.
fn examples(help: &str) -> Roff {
    let mut section = Roff::new();
    section.control("SS", ["EXAMPLES"]);
    section.control("nf", []);
    for line in help.lines().filter(|line| line.starts_with("  ")) {
        section.text([roman(line.trim())]);
    }
    section.control("fi", []);
    section
}

fn exit_status() -> Roff {
    let mut section = Roff::new();
    section.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in exit::TABLE {
        section.control("TP", []);
        section.text([bold(code.to_string())]);
        section.text([roman(meaning)]);
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command_and_every_exit_code() {
        let page = String::from_utf8(page().expect("a page")).expect("UTF-8");
        for title in [
            "NAME",
            "\"BRIGADE CP\"",
            "\"BRIGADE RESUME\"",
            "\"BRIGADE UPLOADS\"",
            "\"BRIGADE UPLOADS ABORT\"",
            "\"BRIGADE SERVE\"",
            "\"BRIGADE DEMO\"",
        ] {
            assert!(page.contains(&format!(".SH {title}\n")), "{title} is missing");
        }
        assert!(page.contains("\\-\\-checksum\\-algorithm"));
        assert!(exit::TABLE.iter().all(|(code, _)| page.contains(&format!("\\fB{code}\\fR"))));
    }
}
