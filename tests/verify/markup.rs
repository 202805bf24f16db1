//! A strict reader for the small subset of XML in the pictures, which shows how a viewer would
//! parse them.

/// An element with its attributes and its direct text.
#[derive(Debug, Default)]
pub(crate) struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub text: String,
    /// Number of enclosing elements.
    pub depth: usize,
}

impl Element {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn number(&self, name: &str) -> f64 {
        self.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).parse().unwrap()
    }

    pub(crate) fn has_class(&self, class: &str) -> bool {
        self.get("class").is_some_and(|classes| classes.split(' ').any(|own| own == class))
    }
}

/// Returns all elements in the order of their start tags, or the first error in the document.
pub(crate) fn read(document: &str) -> Result<Vec<Element>, String> {
    let forbidden = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{fffe}' | '\u{ffff}');
    if let Some(c) = document.chars().find(|c| forbidden(*c)) {
        return Err(format!("{c:?} is not allowed in XML"));
    }
    let (mut elements, mut open): (Vec<Element>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut rest = document;
    while let Some(position) = rest.find('<') {
        let (before, tag) = rest.split_at(position);
        add_text(&mut elements, &open, before)?;
        let end = tag.find('>').ok_or("a tag without end")?;
        let inside = &tag[1..end];
        rest = &tag[end + 1..];
        if let Some(name) = inside.strip_prefix('/') {
            let closed = open.pop().ok_or_else(|| format!("</{name}> closes nothing"))?;
            if elements[closed].name != name {
                return Err(format!("</{name}> closes <{}>", elements[closed].name));
            }
            continue;
        }
        let (inside, empty) = inside.strip_suffix('/').map_or((inside, false), |inside| (inside, true));
        elements.push(element(inside, open.len())?);
        if !empty {
            open.push(elements.len() - 1);
        }
    }
    if !open.is_empty() || !rest.trim().is_empty() {
        return Err(format!("{} elements are left open, and then comes {rest:?}", open.len()));
    }
    Ok(elements)
}

fn add_text(elements: &mut [Element], open: &[usize], text: &str) -> Result<(), String> {
    match open.last() {
        Some(inner) => elements[*inner].text.push_str(&unescaped(text)?),
        None if text.trim().is_empty() => {}
        None => return Err(format!("text outside of everything: {text:?}")),
    }
    Ok(())
}

fn element(inside: &str, depth: usize) -> Result<Element, String> {
    let (name, mut rest) = inside.split_once(' ').unwrap_or((inside, ""));
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(format!("no name of an element: {name:?}"));
    }
    let mut element = Element { name: name.to_owned(), depth, ..Element::default() };
    while !rest.trim().is_empty() {
        let (key, after) = rest.split_once("=\"").ok_or_else(|| format!("no attribute: {rest:?}"))?;
        let (value, after) = after.split_once('"').ok_or_else(|| format!("an open attribute: {after:?}"))?;
        let key = key.trim();
        if !key.chars().all(|c| c.is_ascii_alphabetic() || c == '-') || element.get(key).is_some() {
            return Err(format!("a bad attribute or one that is there twice: {key:?}"));
        }
        element.attributes.push((key.to_owned(), unescaped(value)?));
        rest = after;
    }
    Ok(element)
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entity, after) = part.split_once(';').ok_or_else(|| format!("a lonely & before {part:?}"))?;
        plain.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "#39" => '\'',
            other => return Err(format!("an unknown entity: {other}")),
        });
        plain.push_str(after);
    }
    Ok(plain)
}
