//! Limits of a policy. Each stands far above what a person writes, and low enough that nothing a
//! file says costs more than a second or some hundred megabytes.

/// Bytes of one file.
pub const MAX_FILE: usize = 16 * 1024 * 1024;

/// Bytes of one line: four times the longest path, and nothing else in a line is long.
pub const MAX_LINE: usize = 16 * 1024;

/// Rules of the whole policy, after includes.
pub const MAX_RULES: usize = 200_000;

/// Files within files.
pub const MAX_DEPTH: usize = 16;

/// Files read, those included several times counted each time.
pub const MAX_LOADS: usize = 4096;

/// Bytes read, those included several times counted each time.
pub const MAX_TEXT: usize = 64 * 1024 * 1024;

/// Findings about one file; what follows is not read.
pub const MAX_FINDINGS: usize = 50;

/// Decisions a graph is made from.
pub const MAX_GRAPH: usize = 20_000_000;

/// Lines of a graph: between two places, for one service.
pub const MAX_LINKS: usize = 100_000;
