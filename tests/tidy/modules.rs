//! The modules of the library and the imports between them, as their sources show.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, File, ItemMod, ItemUse, UseTree, Visibility};

use crate::library;

/// The absolute path of a module or item, such as `broker::delivery`.
pub(crate) type Name = Vec<String>;

/// An import of one module from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    /// The importing file, relative to the root.
    pub(crate) file: String,
    /// Its module.
    pub(crate) from: Name,
    /// The module that defines the imported item, or the item's path if it is at the crate's root.
    pub(crate) to: Name,
}

/// Reads every import of the library, without those of unit tests.
pub(crate) fn imports() -> Vec<Import> {
    let files: Vec<(String, Name, File)> = library()
        .into_iter()
        .filter(|source| !source.path.starts_with("src/bin/") && !is_test(&source.path))
        .map(|source| (source.path.clone(), module_of(&source.path), syn::parse_file(&source.text).unwrap()))
        .collect();
    let modules: BTreeSet<Name> = files.iter().map(|(_, module, _)| module.clone()).collect();
    let read: Vec<(String, Name, Paths)> = files
        .into_iter()
        .map(|(path, module, file)| {
            let mut paths = Paths::new(&module, &modules);
            paths.visit_file(&file);
            (path, module, paths)
        })
        .collect();
    let exported: BTreeMap<Name, Name> = read.iter().flat_map(|(_, _, paths)| paths.exported.clone()).collect();
    let mut imports = BTreeSet::new();
    for (file, from, paths) in read {
        for used in paths.used {
            let to = defining(&used, &modules, &exported);
            if to != from {
                imports.insert(Import { file: file.clone(), from: from.clone(), to });
            }
        }
    }
    imports.into_iter().collect()
}

/// Files of unit tests are applications of a kind.
fn is_test(path: &str) -> bool {
    let name = Path::new(path).file_stem().unwrap().to_str().unwrap();
    name == "tests" || name.ends_with("_tests")
}

fn module_of(path: &str) -> Name {
    let path = path.strip_prefix("src/").unwrap_or(path).strip_suffix(".rs").unwrap();
    let parts = path.split('/').filter(|part| !["mod", "lib"].contains(part));
    // The one module with two files has one name.
    parts.map(|part| if part == "ambient_tracing" { "ambient" } else { part }.to_owned()).collect()
}

/// The module that defines an item, followed through re-exports.
fn defining(item: &Name, modules: &BTreeSet<Name>, exported: &BTreeMap<Name, Name>) -> Name {
    let mut item = item.clone();
    for _ in 0..8 {
        let length = (1..=item.len()).rev().find(|length| modules.contains(&item[..*length]));
        let Some(length) = length else {
            // At the root: an item that it re-exports, or one that is not a module's.
            match item.first().and_then(|first| exported.get(std::slice::from_ref(first))) {
                Some(target) => item = [&target[..], &item[1..]].concat(),
                None => return item,
            }
            continue;
        };
        match item.get(length).and_then(|_| exported.get(&item[..=length])) {
            Some(target) => item = [&target[..], &item[length + 1..]].concat(),
            None => return item[..length].to_vec(),
        }
    }
    panic!("{item:?} is re-exported in a circle");
}

/// The paths that one file names.
struct Paths<'a> {
    module: Name,
    modules: &'a BTreeSet<Name>,
    used: BTreeSet<Name>,
    /// The items that the module re-exports from below it.
    exported: Vec<(Name, Name)>,
}

impl<'a> Paths<'a> {
    fn new(module: &Name, modules: &'a BTreeSet<Name>) -> Self {
        Self { module: module.clone(), modules, used: BTreeSet::new(), exported: Vec::new() }
    }

    /// The absolute path, or `None` for one that leads to another crate or stays in the file.
    fn resolve(&self, path: &[String]) -> Option<Name> {
        let rest = |skipped: usize| path[skipped..].to_vec();
        match path.first()?.as_str() {
            "crate" => Some(rest(1)),
            "self" => Some([&self.module[..], &rest(1)].concat()),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                let base = self.module.len().checked_sub(up)?;
                Some([&self.module[..base], &rest(up)].concat())
            }
            child => {
                let below = [&self.module[..], &[child.to_owned()]].concat();
                self.modules.contains(&below).then(|| [&self.module[..], path].concat())
            }
        }
    }

    fn add_tree(&mut self, tree: &UseTree, before: &[String], public: bool) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&path.tree, &with(&path.ident), public),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(tree, before, public)),
            UseTree::Name(name) if name.ident == "self" => self.add(before, None, public),
            UseTree::Name(name) => self.add(&with(&name.ident), Some(&name.ident), public),
            UseTree::Rename(name) => self.add(&with(&name.ident), Some(&name.rename), public),
            UseTree::Glob(_) => self.add(before, None, false),
        }
    }

    fn add(&mut self, path: &[String], name: Option<&syn::Ident>, public: bool) {
        let Some(target) = self.resolve(path) else { return };
        let name = name.map_or_else(|| path.last().cloned().unwrap(), ToString::to_string);
        let is_below = target.starts_with(&self.module);
        if public {
            self.exported.push(([&self.module[..], &[name]].concat(), target.clone()));
        }
        // Handing on an item from below is what the file of a folder is for.
        if !(public && is_below) {
            self.used.insert(target);
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_tree(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if parts.len() > 1
            && let Some(target) = self.resolve(&parts)
        {
            self.used.insert(target);
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !item.attrs.iter().any(is_for_tests) && item.content.is_none() {
            visit::visit_item_mod(self, item);
        }
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test")
}
