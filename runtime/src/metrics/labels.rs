// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Labels whose values are known when the program is built.

use std::fmt::Debug;
use std::hash::Hash;

use prometheus_client::encoding::EncodeLabelSet;

use super::LabelDoc;

/// A label: an enum of the values it can have. Made by [`label!`](crate::label).
pub trait Label: Copy + Send + Sync + 'static {
    /// The label's name.
    const KEY: &'static str;
    /// Every value.
    const ALL: &'static [Self];
    /// The value as it is on the wire.
    fn as_str(self) -> &'static str;
}

/// The labels of a metric: a tuple of none to three [`Label`]s.
pub trait LabelSet: Copy + Send + Sync + 'static {
    /// Keys and values, as the encoder wants them.
    type Pairs: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static;
    /// This combination's keys and values.
    fn pairs(self) -> Self::Pairs;
    /// Every combination there is.
    fn all() -> Vec<Self>;
    /// The labels, for the reference page.
    fn describe() -> Vec<LabelDoc>;
}

type Pair = (&'static str, &'static str);

fn pair<A: Label>(label: A) -> Pair {
    (A::KEY, label.as_str())
}

fn doc<A: Label>() -> LabelDoc {
    LabelDoc { key: A::KEY, values: A::ALL.iter().map(|value| value.as_str()).collect() }
}

impl LabelSet for () {
    type Pairs = [Pair; 0];

    fn pairs(self) -> Self::Pairs {
        []
    }

    fn all() -> Vec<Self> {
        vec![()]
    }

    fn describe() -> Vec<LabelDoc> {
        Vec::new()
    }
}

impl<A: Label> LabelSet for (A,) {
    type Pairs = [Pair; 1];

    fn pairs(self) -> Self::Pairs {
        [pair(self.0)]
    }

    fn all() -> Vec<Self> {
        A::ALL.iter().map(|a| (*a,)).collect()
    }

    fn describe() -> Vec<LabelDoc> {
        vec![doc::<A>()]
    }
}

impl<A: Label, B: Label> LabelSet for (A, B) {
    type Pairs = [Pair; 2];

    fn pairs(self) -> Self::Pairs {
        [pair(self.0), pair(self.1)]
    }

    fn all() -> Vec<Self> {
        A::ALL.iter().flat_map(|a| B::ALL.iter().map(|b| (*a, *b))).collect()
    }

    fn describe() -> Vec<LabelDoc> {
        vec![doc::<A>(), doc::<B>()]
    }
}

impl<A: Label, B: Label, C: Label> LabelSet for (A, B, C) {
    type Pairs = [Pair; 3];

    fn pairs(self) -> Self::Pairs {
        [pair(self.0), pair(self.1), pair(self.2)]
    }

    fn all() -> Vec<Self> {
        let rest = <(B, C)>::all();
        A::ALL.iter().flat_map(|a| rest.iter().map(|(b, c)| (*a, *b, *c))).collect()
    }

    fn describe() -> Vec<LabelDoc> {
        vec![doc::<A>(), doc::<B>(), doc::<C>()]
    }
}

/// Declares an enum that is a metric's label: its name on the wire, and each value's.
///
/// ```
/// evanesce_runtime::label! {
///     /// How a delivery ended.
///     pub enum Outcome("outcome") {
///         /// The files are in place.
///         Delivered = "delivered",
///         /// They are not.
///         Failed = "failed",
///     }
/// }
/// ```
#[macro_export]
macro_rules! label {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident($key:literal) {
            $($(#[$value_meta:meta])* $value:ident = $text:literal),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $visibility enum $name {
            $($(#[$value_meta])* $value,)+
        }

        impl $crate::metrics::Label for $name {
            const KEY: &'static str = $key;
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }
    };
}
