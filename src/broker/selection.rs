//! What a pull is given of a queue: by tags, by an expression of its own, or by its group's registered filter.

use std::sync::Arc;

use super::filters::{Filters, GroupFilter, passes};
use crate::{
    ExtUnit, Filter, TagFilter,
    format::{
        message::Record,
        properties::{Properties, RETRY_TOPIC},
    },
    reput::Arrival,
    sql92::Expression,
    types::TagsCode,
};

/// Chooses messages for one pull.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    Tags(TagFilter),
    /// An expression that the pull itself brought.
    Expression(Arc<Expression>),
    /// The filter that the group's heartbeats registered.
    Registered {
        filter: Arc<GroupFilter>,
        filters: Arc<Filters>,
    },
    /// A retry topic: each message by the group's filter of the topic it came from.
    Retry {
        group: String,
        filters: Arc<Filters>,
    },
}

impl Selection {
    /// Whether everything passes.
    pub(crate) fn is_all(&self) -> bool {
        matches!(self, Self::Tags(tags) if tags.is_all())
    }

    /// Whether a message that just arrived passes.
    pub(crate) fn wants(&self, arrival: &Arrival<'_>) -> bool {
        match self {
            Self::Tags(tags) => tags.by_queue_entry(arrival.tags_code, None),
            _ => self.passes(arrival.properties),
        }
    }

    fn passes(&self, properties: Properties<'_>) -> bool {
        match self {
            Self::Tags(_) => true,
            Self::Expression(expression) => passes(expression, properties),
            Self::Registered { filter, .. } => filter.passes(properties),
            Self::Retry { group, filters } => {
                let topic = properties.get(RETRY_TOPIC);
                let filter = topic.and_then(|topic| filters.get(topic, group));
                filter.is_none_or(|filter| filter.passes(properties))
            }
        }
    }
}

impl Filter for Selection {
    fn by_queue_entry(&self, tags_code: TagsCode, ext: Option<&ExtUnit>) -> bool {
        match self {
            Self::Tags(tags) => tags.by_queue_entry(tags_code, ext),
            Self::Registered { filter, filters } => filters.may_pass(filter, ext),
            Self::Expression(_) | Self::Retry { .. } => true,
        }
    }

    fn tags_codes(&self) -> Option<&[TagsCode]> {
        match self {
            Self::Tags(tags) => tags.tags_codes(),
            _ => None,
        }
    }

    fn reads_records(&self) -> bool {
        match self {
            Self::Tags(tags) => tags.reads_records(),
            _ => true,
        }
    }

    fn by_record(&self, record: &Record<'_>) -> bool {
        match self {
            Self::Tags(tags) => tags.by_record(record),
            _ => self.passes(record.properties),
        }
    }
}
