//! Path prefixes as a tree of segments. A lookup takes one step per segment of the path, whatever
//! the number of prefixes.

use std::collections::HashMap;

/// Indices of rules in the order of precedence.
pub(super) type RouteIndices = Vec<u32>;

/// All prefixes of one host.
#[derive(Debug)]
pub(super) struct PrefixTree {
    nodes: Vec<PrefixNode>,
}

#[derive(Debug, Default)]
struct PrefixNode {
    children: HashMap<Box<str>, u32>,
    parent: u32,
    /// Rules of the prefix that ends with this segment.
    without_slash: RouteIndices,
    /// Rules of the prefix that ends with the slash after this segment.
    with_slash: RouteIndices,
}

impl Default for PrefixTree {
    fn default() -> Self {
        Self { nodes: vec![PrefixNode::default()] }
    }
}

impl PrefixTree {
    /// The rules of `prefix`; inserts the prefix if it is missing.
    pub(super) fn group_mut(&mut self, prefix: &str) -> &mut RouteIndices {
        let body = prefix.strip_prefix('/').unwrap_or(prefix);
        let (body, has_trailing_slash) = match body.strip_suffix('/') {
            Some(body) => (body, true),
            None => (body, prefix == "/"),
        };
        let mut at = 0;
        if prefix != "/" {
            for segment in body.split('/') {
                at = self.child(at, segment);
            }
        }
        let node = &mut self.nodes[at];
        if has_trailing_slash { &mut node.with_slash } else { &mut node.without_slash }
    }

    fn child(&mut self, at: usize, segment: &str) -> usize {
        if let Some(&child) = self.nodes[at].children.get(segment) {
            return child as usize;
        }
        let child = self.nodes.len();
        self.nodes.push(PrefixNode { parent: at as u32, ..PrefixNode::default() });
        self.nodes[at].children.insert(segment.into(), child as u32);
        child
    }

    pub(super) fn groups_mut(&mut self) -> impl Iterator<Item = &mut RouteIndices> {
        self.nodes.iter_mut().flat_map(|node| [&mut node.without_slash, &mut node.with_slash])
    }

    /// The first result of `pick` over the prefixes of `path`, the longest first.
    pub(super) fn find<T>(
        &self,
        path: &str,
        pick: impl Fn(&RouteIndices) -> Option<T>,
    ) -> Option<T> {
        let mut at = &self.nodes[0];
        let mut rest = path.strip_prefix('/');
        while let Some(tail) = rest {
            let (segment, next) =
                tail.split_once('/').map_or((tail, None), |(segment, next)| (segment, Some(next)));
            let Some(&child) = at.children.get(segment) else { break };
            (at, rest) = (&self.nodes[child as usize], next);
        }
        let mut has_more_path = rest.is_some();
        loop {
            let with_slash = if has_more_path { pick(&at.with_slash) } else { None };
            if let Some(found) = with_slash.or_else(|| pick(&at.without_slash)) {
                return Some(found);
            }
            if std::ptr::eq(at, &raw const self.nodes[0]) {
                return None;
            }
            at = &self.nodes[at.parent as usize];
            has_more_path = true;
        }
    }
}
