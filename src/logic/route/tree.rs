//! Path prefixes as a tree of segments: a look-up takes as many steps as the path has segments that
//! are known, however many prefixes there are.

use std::collections::HashMap;

/// Positions of rules, the one to ask first in front.
pub(super) type Group = Vec<u32>;

/// All prefixes of one host.
#[derive(Debug)]
pub(super) struct Tree {
    /// The root first.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, u32>,
    parent: u32,
    /// Prefixes that end with this segment.
    closed: Group,
    /// Prefixes that end with the slash after it.
    open: Group,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Tree {
    /// The rules for `prefix`.
    pub(super) fn group(&mut self, prefix: &str) -> &mut Group {
        let body = prefix.strip_prefix('/').unwrap_or(prefix);
        let (body, is_open) = match body.strip_suffix('/') {
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
        if is_open { &mut node.open } else { &mut node.closed }
    }

    fn child(&mut self, at: usize, segment: &str) -> usize {
        if let Some(&child) = self.nodes[at].children.get(segment) {
            return child as usize;
        }
        let child = self.nodes.len();
        self.nodes.push(Node { parent: at as u32, ..Node::default() });
        self.nodes[at].children.insert(segment.into(), child as u32);
        child
    }

    /// Every group.
    pub(super) fn groups(&mut self) -> impl Iterator<Item = &mut Group> {
        self.nodes.iter_mut().flat_map(|node| [&mut node.closed, &mut node.open])
    }

    /// What `pick` finds in the groups of those prefixes that `path` begins with, the longest first.
    pub(super) fn find<T>(&self, path: &str, pick: impl Fn(&Group) -> Option<T>) -> Option<T> {
        let mut at = &self.nodes[0];
        let mut rest = path.strip_prefix('/');
        while let Some(tail) = rest {
            let (segment, next) =
                tail.split_once('/').map_or((tail, None), |(segment, next)| (segment, Some(next)));
            let Some(&child) = at.children.get(segment) else { break };
            (at, rest) = (&self.nodes[child as usize], next);
        }
        let mut is_followed = rest.is_some();
        loop {
            let open = if is_followed { pick(&at.open) } else { None };
            if let Some(found) = open.or_else(|| pick(&at.closed)) {
                return Some(found);
            }
            if std::ptr::eq(at, &raw const self.nodes[0]) {
                return None;
            }
            at = &self.nodes[at.parent as usize];
            is_followed = true;
        }
    }
}
