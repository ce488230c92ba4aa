//! What a reader asks of messages: by the ConsumeQueue entry first, which is cheap, then by the record.

use std::sync::Arc;

use crate::{
    consume_queue::ExtUnit,
    format::{hash, message::Record, properties},
    sql92::Expression,
    types::TagsCode,
};

/// Chooses messages while a queue is read.
pub trait Filter: Send + Sync {
    /// Whether the message may match, judged by its queue entry alone. `ext` is there for queues with
    /// ConsumeQueueExt units.
    fn by_queue_entry(&self, tags_code: TagsCode, ext: Option<&ExtUnit>) -> bool;

    /// The tags codes that pass, when [`Filter::by_queue_entry`] asks for nothing but one of these: entries are then
    /// looked through without a call for each. `None`, or an empty list, when it has more to say.
    fn tags_codes(&self) -> Option<&[TagsCode]> {
        None
    }

    /// Whether [`Filter::by_record`] has a say. Where it has none, records are not read to be filtered.
    fn reads_records(&self) -> bool {
        true
    }

    /// Whether the message matches, judged by the record. Tag filters of RocketMQ leave this to the client, since
    /// hashes rarely collide.
    fn by_record(&self, record: &Record<'_>) -> bool {
        let _ = record;
        true
    }
}

/// A tag expression: `*`, one tag, or several as `a || b`.
///
/// The queue entry decides by hash; with [`TagFilter::exact`] the record's own tag is compared too.
///
/// ```
/// use reput::{Filter, TagFilter, TagsCode};
/// let filter = TagFilter::parse("TagA || TagB");
/// assert!(filter.by_queue_entry(TagsCode(2_598_919), None));
/// assert!(!filter.by_queue_entry(TagsCode(1), None));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagFilter {
    tags: Vec<String>,
    codes: Vec<TagsCode>,
    exact: bool,
}

impl TagFilter {
    /// Reads an expression. An empty one and `*` let everything pass.
    #[must_use]
    pub fn parse(expression: &str) -> Self {
        let expression = expression.trim();
        if expression.is_empty() || expression == "*" {
            return Self::default();
        }
        let tags: Vec<String> =
            expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        let codes = tags.iter().map(|tag| hash::tags_code(Some(tag))).collect();
        Self { tags, codes, exact: false }
    }

    /// Lets the codes of a subscription pass, as a consumer's heartbeat lists them.
    #[must_use]
    pub fn from_codes(codes: impl IntoIterator<Item = TagsCode>) -> Self {
        Self { tags: Vec::new(), codes: codes.into_iter().collect(), exact: false }
    }

    /// Compares the record's own tag too, so that tags of equal hash do not pass for one another.
    #[must_use]
    pub const fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// Whether everything passes.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.codes.is_empty()
    }
}

impl Filter for TagFilter {
    fn by_queue_entry(&self, tags_code: TagsCode, _ext: Option<&ExtUnit>) -> bool {
        self.codes.is_empty() || self.codes.contains(&tags_code)
    }

    fn tags_codes(&self) -> Option<&[TagsCode]> {
        Some(&self.codes)
    }

    fn reads_records(&self) -> bool {
        self.exact && !self.tags.is_empty()
    }

    fn by_record(&self, record: &Record<'_>) -> bool {
        !self.exact
            || self.tags.is_empty()
            || record.properties.get(properties::TAGS).is_some_and(|tag| self.tags.iter().any(|t| t == tag))
    }
}

/// An SQL92 expression over the properties of the record.
///
/// ```
/// use std::sync::Arc;
/// use reput::{Filter, SqlFilter, sql92::Expression};
/// let filter = SqlFilter::new(Arc::new(Expression::parse("amount > 100")?));
/// assert!(filter.reads_records());
/// # Ok::<(), reput::sql92::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SqlFilter(Arc<Expression>);

impl SqlFilter {
    /// Lets those messages pass of which the expression is true.
    #[must_use]
    pub const fn new(expression: Arc<Expression>) -> Self {
        Self(expression)
    }

    /// The expression.
    #[must_use]
    pub const fn expression(&self) -> &Arc<Expression> {
        &self.0
    }
}

impl Filter for SqlFilter {
    fn by_queue_entry(&self, _tags_code: TagsCode, _ext: Option<&ExtUnit>) -> bool {
        true
    }

    fn by_record(&self, record: &Record<'_>) -> bool {
        self.0.matches(|name| record.properties.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_passes_the_tags_it_names_and_no_other() {
        let filter = TagFilter::parse(" TagA||  TagB ");
        for (tag, passes) in [("TagA", true), ("TagB", true), ("TagC", false), ("", false)] {
            assert_eq!(filter.by_queue_entry(hash::tags_code(Some(tag)), None), passes, "{tag}");
        }
        for all in ["*", "", "  "] {
            assert!(TagFilter::parse(all).is_all());
            assert!(TagFilter::parse(all).by_queue_entry(TagsCode(77), None));
        }
    }
}
