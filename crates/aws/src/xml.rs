//! Answers of AWS's Query services, as a tree.

use roxmltree::Node;

/// One element. Attributes and namespaces say nothing in these answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub name: String,
    /// Between its tags, without that of its children.
    pub text: String,
    pub children: Vec<Element>,
}

/// What an element that is not there answers.
static NOTHING: Element = Element { name: String::new(), text: String::new(), children: Vec::new() };

impl Element {
    pub fn read(document: &str) -> Result<Self, roxmltree::Error> {
        Ok(Self::of(roxmltree::Document::parse(document)?.root_element()))
    }

    fn of(node: Node) -> Self {
        Self {
            name: node.tag_name().name().to_owned(),
            text: node.children().filter_map(|child| child.text().filter(|_| child.is_text())).collect(),
            children: node.children().filter(Node::is_element).map(Self::of).collect(),
        }
    }

    /// The first child of this name; one without anything if there is none.
    pub fn child(&self, name: &str) -> &Self {
        self.children.iter().find(|child| child.name == name).unwrap_or(&NOTHING)
    }

    /// The text of a child; empty if it is not there.
    pub fn text(&self, name: &str) -> &str {
        &self.child(name).text
    }

    /// The text of a child that is there and has one.
    pub fn filled(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// The `item`s or `member`s of a child that is a list.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.child(name).children.iter().filter(|item| item.name == "item" || item.name == "member")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_a_tree() {
        let answer = r#"<?xml version="1.0"?>
            <R xmlns="http://example.com/"><set><item><id>a &amp; b</id><empty/></item><item><id>c</id></item></set>
            <last>1</last></R>"#;
        let root = Element::read(answer).expect("a tree");
        assert_eq!(root.name, "R");
        let ids: Vec<_> = root.list("set").map(|item| item.text("id")).collect();
        assert_eq!(ids, ["a & b", "c"]);
        assert_eq!(root.text("last"), "1");
        assert_eq!(root.child("set").list("none").count(), 0);
        assert_eq!((root.filled("last").as_deref(), root.filled("none")), (Some("1"), None));
    }
}
