//! Applies the properties of parsers to inputs: to one, or to every file of a corpus.
//!
//! Tests and fuzz targets share this file, so that both hold a parser to the same bounds.

/// The property of a parser. It takes any bytes, and panics on those for which it does not hold.
pub type Property = fn(&[u8]);

/// The memory that a property may take: a fixed number of bytes, and so many for each byte of the
/// input. A parser whose memory is no multiple of its input lets a short message take all memory.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    fixed: usize,
    each: usize,
}

/// The memory of a parser, with the copies that its property makes.
pub const PARSED: Memory = Memory { fixed: 64 << 10, each: 64 };

/// The memory of a header table: each element of an array is a header with the name of the array,
/// which takes up to 255 bytes, and an element may take a single byte.
pub const REPEATED: Memory = Memory { fixed: 64 << 10, each: 2048 };

/// The memory of drawings, which contain a style, a script, and several lines for each span.
pub const DRAWN: Memory = Memory { fixed: 2 << 20, each: 4096 };

/// Applies the property to the input.
///
/// # Panics
/// Panics if the property does not hold, or takes more memory.
pub fn hold(property: Property, memory: Memory, input: &[u8]) {
    let taken = allocation_counter::measure(|| property(input)).bytes_max;
    let bound = memory.fixed + memory.each * input.len();
    assert!(taken <= bound as u64, "{taken} bytes of memory for {} bytes of input", input.len());
}

/// Applies the property to every file of the corpus of that name, in `fuzz/corpus`.
///
/// # Panics
/// Panics if the property does not hold for a file, which is named, or if there are no files.
pub fn replay(name: &str, property: Property, memory: Memory) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    for path in paths {
        let input = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if std::panic::catch_unwind(|| hold(property, memory, &input)).is_err() {
            panic!("the property does not hold for {}", path.display());
        }
    }
}
