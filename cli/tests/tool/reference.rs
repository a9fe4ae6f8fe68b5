// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::Path;

use super::{folder, run};

/// The commands that the tool's own help lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    listed.filter_map(|line| line.split_whitespace().next()).filter(|it| *it != "help").map(str::to_owned).collect()
}

#[test]
fn the_reference_page_is_what_the_tool_says_of_itself() {
    let folder = folder();
    let help = run(folder.path(), &["--help"], "").ok();
    let mut page = format!(
        "# The command line\n\nWritten from the tool's own help by its test; change it there.\n\n\
         ## `evanesce`\n\n```text\n{}\n```\n",
        help.trim_end()
    );
    let commands = commands(&help);
    assert!(commands.contains(&"seal".to_owned()), "{help}");
    // A command may have commands of its own, which come after it.
    let mut left: Vec<_> = commands.into_iter().rev().collect();
    while let Some(command) = left.pop() {
        let words: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let help = run(folder.path(), &words, "").ok();
        page += &format!("\n## `evanesce {command}`\n\n```text\n{}\n```\n", help.trim_end());
        left.extend(self::commands(&help).iter().rev().map(|inner| format!("{command} {inner}")));
    }
    let page = page.lines().map(str::trim_end).fold(String::new(), |page, line| page + line + "\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/cli.md");
    if std::env::var_os("EVANESCE_UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "run the test again with EVANESCE_UPDATE=1 and commit {}", path.display());
}
