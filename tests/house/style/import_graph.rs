//! Import cycles between files.
//!
//! An edge leads from a file to the file that defines what it names: `use` declarations and inline
//! paths are resolved, and re-exports are followed to the definition. Edges between a module and
//! its ancestors are left out. Tarjan's algorithm gives the strongly connected components.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{SourceFile, read_sources};

/// Files of the largest cycle that is allowed.
const MAX_CYCLE_FILES: usize = 3;

/// Re-exports that are followed for one name.
const MAX_REEXPORTS: usize = 12;

type ModulePath = Vec<String>;

/// What one module defines, imports and names.
#[derive(Default)]
struct Module {
    definitions: BTreeSet<String>,
    imports: BTreeMap<String, ModulePath>,
    references: Vec<ModulePath>,
}

struct ImportGraph {
    modules: BTreeMap<ModulePath, Module>,
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`.
fn module_path(source: &SourceFile) -> ModulePath {
    let mut parts: Vec<String> = source
        .path
        .iter()
        .skip(1)
        .map(|part| part.to_string_lossy().trim_end_matches(".rs").to_owned())
        .collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `a::{b, c::d as e}` as its leaves with their local names.
fn expand_use_tree(prefix: &[String], tree: &str, found: &mut Vec<(ModulePath, String)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut prefix = prefix.to_vec();
        prefix.extend(segments(&tree[..open]));
        let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
        let mut depth = 0;
        let mut start = 0;
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand_use_tree(&prefix, &inner[start..at], found);
                    start = at + 1;
                }
                _ => {}
            }
        }
        expand_use_tree(&prefix, &inner[start..], found);
        return;
    }
    let (path, alias) =
        tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias)));
    let mut path: ModulePath = prefix.iter().cloned().chain(segments(path)).collect();
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(last) = path.last() {
        let name = alias.map_or_else(|| last.clone(), |alias| alias.trim().to_owned());
        found.push((path, name));
    }
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

impl ImportGraph {
    fn new(sources: &[SourceFile]) -> Self {
        let paths: BTreeSet<ModulePath> = sources.iter().map(module_path).collect();
        let mut modules = BTreeMap::new();
        for source in sources.iter().filter(|one| !one.is_test() && !one.path.ends_with("main.rs"))
        {
            let own = module_path(source);
            let code = source.code_without_tests();
            modules.insert(own.clone(), read_module(&own, &code, &paths));
        }
        Self { modules }
    }

    /// The module that defines what an absolute path names.
    fn defining_module(&self, path: &[String]) -> Option<ModulePath> {
        let mut path = path.to_vec();
        for _ in 0..MAX_REEXPORTS {
            let length = (1..=path.len()).rev().find(|&n| self.modules.contains_key(&path[..n]))?;
            let module = &self.modules[&path[..length]];
            let Some(name) = path.get(length) else { return Some(path) };
            match module.imports.get(name) {
                Some(target) if !module.definitions.contains(name) => {
                    let mut next = target.clone();
                    next.extend_from_slice(&path[length + 1..]);
                    if next == path {
                        return Some(path[..length].to_vec());
                    }
                    path = next;
                }
                _ => return Some(path[..length].to_vec()),
            }
        }
        None
    }

    fn edges(&self) -> BTreeMap<&ModulePath, BTreeSet<ModulePath>> {
        let is_kin = |a: &ModulePath, b: &ModulePath| a.starts_with(b) || b.starts_with(a);
        let targets = |(own, module): (&ModulePath, &Module)| {
            let defined = module.references.iter().filter_map(|path| self.defining_module(path));
            defined.filter(|target| !is_kin(own, target)).collect()
        };
        self.modules.iter().map(|(own, module)| (own, targets((own, module)))).collect()
    }

    /// Strongly connected components of more than one file, the largest first.
    fn cycles(&self) -> Vec<Vec<String>> {
        let edges = self.edges();
        let mut search = Tarjan::new(&edges);
        for module in edges.keys() {
            if !search.indices.contains_key(*module) {
                search.visit(module);
            }
        }
        let mut cycles: Vec<Vec<String>> = search
            .components
            .into_iter()
            .filter(|component| component.len() > 1)
            .map(|component| component.iter().map(|module| module.join("/")).collect())
            .collect();
        cycles.sort_by_key(|cycle| std::cmp::Reverse(cycle.len()));
        cycles
    }
}

fn read_module(own: &ModulePath, code: &str, paths: &BTreeSet<ModulePath>) -> Module {
    let mut module = Module::default();
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        let start = use_keyword(statement);
        let Some(start) = start else {
            rest.push_str(statement);
            continue;
        };
        rest.push_str(&statement[..start]);
        let mut leaves = Vec::new();
        expand_use_tree(&[], statement[start + 4..].trim_end_matches(';'), &mut leaves);
        for (path, name) in leaves {
            if let Some(path) = absolute(own, &path, paths) {
                module.references.push(path.clone());
                module.imports.insert(name, path);
            }
        }
    }
    for keyword in ["struct ", "enum ", "trait ", "type ", "fn ", "const ", "static "] {
        for (at, _) in rest.match_indices(keyword) {
            if !rest[..at].chars().next_back().is_some_and(is_identifier) {
                let name: String =
                    rest[at + keyword.len()..].chars().take_while(|c| is_identifier(*c)).collect();
                module.definitions.insert(name);
            }
        }
    }
    for path in inline_paths(&rest) {
        let target = match module.imports.get(&path[0]) {
            Some(import) => Some(import.iter().cloned().chain(path[1..].iter().cloned()).collect()),
            None => absolute(own, &path, paths),
        };
        module.references.extend(target);
    }
    module
}

/// Where `use ` begins, if the statement ends with a use declaration.
fn use_keyword(statement: &str) -> Option<usize> {
    let at = statement.rfind("use ")?;
    let before = statement[..at].trim_end();
    let begins =
        before.is_empty() || before.ends_with(['}', '{', ']', ';', ')']) || before.ends_with("pub");
    let is_whole_word = !statement[..at].chars().next_back().is_some_and(is_identifier);
    (begins && is_whole_word).then_some(at)
}

/// Paths of at least two segments outside of use declarations.
fn inline_paths(code: &str) -> Vec<ModulePath> {
    let mut found = Vec::new();
    for word in code.split(|c: char| !is_identifier(c) && c != ':') {
        let path = segments(word);
        if word.contains("::") && path.len() > 1 && !word.starts_with(':') {
            found.push(path);
        }
    }
    found
}

/// The path from the crate's root; `None` for what is outside of the crate.
fn absolute(own: &ModulePath, path: &[String], paths: &BTreeSet<ModulePath>) -> Option<ModulePath> {
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" | "super" => {
            let mut base = own.clone();
            let mut rest = path;
            while let Some(first) = rest.first().filter(|part| *part == "super" || *part == "self")
            {
                if first == "super" {
                    base.pop();
                }
                rest = &rest[1..];
            }
            base.extend_from_slice(rest);
            Some(base)
        }
        child => {
            let mut module = own.clone();
            module.push(child.to_owned());
            paths.contains(&module).then(|| own.iter().chain(path).cloned().collect())
        }
    }
}

type Edges<'a> = BTreeMap<&'a ModulePath, BTreeSet<ModulePath>>;

/// R. Tarjan, *Depth-First Search and Linear Graph Algorithms*, 1972.
struct Tarjan<'a> {
    edges: &'a Edges<'a>,
    indices: BTreeMap<ModulePath, usize>,
    low_links: BTreeMap<ModulePath, usize>,
    stack: Vec<ModulePath>,
    components: Vec<Vec<ModulePath>>,
}

impl<'a> Tarjan<'a> {
    fn new(edges: &'a Edges<'a>) -> Self {
        Self {
            edges,
            indices: BTreeMap::new(),
            low_links: BTreeMap::new(),
            stack: Vec::new(),
            components: Vec::new(),
        }
    }

    fn visit(&mut self, module: &ModulePath) {
        let index = self.indices.len();
        self.indices.insert(module.clone(), index);
        self.low_links.insert(module.clone(), index);
        self.stack.push(module.clone());
        for target in self.edges.get(module).into_iter().flatten() {
            let low = match self.indices.get(target) {
                None => {
                    self.visit(target);
                    self.low_links[target]
                }
                Some(_) if !self.stack.contains(target) => continue,
                Some(&index) => index,
            };
            let own = self.low_links.get_mut(module).expect("visited");
            *own = low.min(*own);
        }
        if self.low_links[module] == index {
            let start = self.stack.iter().position(|one| one == module).expect("on the stack");
            self.components.push(self.stack.split_off(start));
        }
    }
}

#[test]
fn import_cycles_have_at_most_three_files() {
    let cycles = ImportGraph::new(&read_sources("src")).cycles();
    for cycle in cycles.iter().filter(|cycle| cycle.len() > 1) {
        println!("{}: {}", cycle.len(), cycle.join(" "));
    }
    let large: Vec<_> = cycles.iter().filter(|cycle| cycle.len() > MAX_CYCLE_FILES).collect();
    assert!(large.is_empty(), "{large:#?}");
}

#[test]
fn planted_import_cycles_are_found() {
    let cycles = |files: &[(&str, &str)]| {
        let sources: Vec<_> =
            files.iter().map(|(path, text)| SourceFile::new(path, text)).collect();
        let mut cycles = ImportGraph::new(&sources).cycles();
        cycles.iter_mut().for_each(|cycle| cycle.sort());
        cycles
    };
    let cycle = cycles(&[
        ("src/a/mod.rs", "mod b; mod c; pub use b::{B, Other as Renamed};"),
        ("src/a/b.rs", "pub struct B;\npub struct Other;\nuse super::c::{self, C};"),
        ("src/a/c.rs", "pub struct C;\nfn f() -> crate::d::D { todo() }"),
        ("src/d.rs", "pub struct D;\nuse crate::a::Renamed;"),
    ]);
    assert_eq!(cycle, [["a/b", "a/c", "d"]], "re-exports lead to the file that defines");
    let none = cycles(&[
        ("src/a/mod.rs", "pub mod b;\npub struct A;\nuse b::B;"),
        (
            "src/a/b.rs",
            "use super::A;\npub struct B;\n#[cfg(test)]\nmod tests {\n    use crate::c::C;\n}",
        ),
        (
            "src/c.rs",
            "use crate::a::b::B; // crate::a\npub struct C; const TEXT: &str = \"crate::c\";",
        ),
    ]);
    assert!(none.is_empty(), "parents, tests, comments and literals are no edges: {none:?}");
}
