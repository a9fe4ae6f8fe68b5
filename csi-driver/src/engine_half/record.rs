// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the next engine half must know about a volume: names, versions and keyed digests, never a secret.

use evanesce_engine::audit::Subject;
use evanesce_engine::deliver::Before;
use evanesce_engine::error::{Error, Kind};
use evanesce_engine::names::VolumeClassName;
use evanesce_engine::workload::Workload;
use serde::{Deserialize, Serialize};

use crate::protocol::{MAX_RECORD, TargetPath, VolumeId};

/// The form of records that this build writes.
const VERSION: u32 = 1;

/// A volume, remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    version: u32,
    /// Where it is attached.
    pub target: TargetPath,
    /// Whose it is.
    pub workload: Workload,
    /// Its `SecretVolume`.
    pub class: VolumeClassName,
    /// The pod's fsGroup.
    pub group: Option<u32>,
    /// Its size in bytes.
    pub size: u64,
    /// The generation that shows it.
    #[serde(default)]
    pub generation: Option<u64>,
    /// What it shows; absent where that was not known when the record was written.
    pub before: Option<Before>,
}

impl Record {
    /// A record of a volume that is about to be attached.
    pub fn new(subject: &Subject, target: TargetPath, group: Option<u32>, size: u64) -> Self {
        let Subject { volume: _, workload, class } = subject.clone();
        Self { version: VERSION, target, workload, class, group, size, generation: None, before: None }
    }

    /// The JSON text. A record too long for the warden loses its list of versions: the next refresh fetches instead of
    /// asking for versions, and the digest still tells whether anything changed.
    ///
    /// # Errors
    /// [`Kind::Internal`](evanesce_engine::error::Kind::Internal) where even that is too long.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        let json = |record: &Self| {
            serde_json::to_vec(record).map_err(|error| {
                Error::internal("a volume's record could not be written").with_detail(error.to_string())
            })
        };
        let whole = json(self)?;
        if whole.len() <= MAX_RECORD {
            return Ok(whole);
        }
        let mut short = self.clone();
        if let Some(before) = &mut short.before {
            before.secrets.clear();
        }
        let short = json(&short)?;
        if short.len() <= MAX_RECORD {
            Ok(short)
        } else {
            Err(Error::internal("a volume's record is too long to keep"))
        }
    }

    /// Reads what an earlier engine half wrote.
    ///
    /// # Errors
    /// [`Kind::NotReady`], naming the version where it is not ours; [`Kind::Internal`] where it is damaged.
    pub fn from_json(volume: &VolumeId, json: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let unreadable = |error: serde_json::Error| {
            Error::internal(format!("the record of volume {volume} cannot be read")).with_detail(error.to_string())
        };
        let Versioned { version } = serde_json::from_slice(json).map_err(unreadable)?;
        if version != VERSION {
            let text = format!(
                "the record of volume {volume} has version {version} and this build reads {VERSION}: \
                 run the version that wrote it, or delete the volume's pod"
            );
            return Err(Error::new(Kind::NotReady, text));
        }
        serde_json::from_slice(json).map_err(unreadable)
    }

    /// Whose volume it is.
    pub fn subject(&self, volume: &VolumeId) -> Subject {
        Subject { volume: volume.to_string(), workload: self.workload.clone(), class: self.class.clone() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::engine_half::testing;
    use evanesce_engine::audit::Shown;
    use evanesce_engine::names::BackendName;
    use evanesce_engine::projection::{DigestKey, Projection};
    use evanesce_engine::secret::Version;

    fn record(secrets: usize) -> (VolumeId, Record) {
        let id = VolumeId::try_from("csi-1".to_owned()).unwrap();
        let target = TargetPath::try_from("/pods/p/mount".to_owned()).unwrap();
        let mut record = Record::new(&testing::subject(&id), target, Some(2000), 1 << 20);
        let shown = Shown {
            backend: BackendName::parse("vault").unwrap(),
            path: "kv/data/payments/db".into(),
            version: Some(Version::new(7)),
            ends: false,
        };
        let digest = Projection::default().digest(&DigestKey::new(&[0; 32]));
        record.before = Some(Before { secrets: vec![shown; secrets], digest, revision: 1, due: None });
        (id, record)
    }

    #[test]
    fn a_record_reads_back_as_it_was() {
        let (id, record) = record(10);
        assert_eq!(Record::from_json(&id, &record.to_json().unwrap()).unwrap(), record);
        assert_eq!(record.subject(&id), testing::subject(&id));
    }

    #[test]
    fn a_record_that_is_too_long_keeps_its_digest() {
        let (id, record) = record(500);
        let json = record.to_json().unwrap();
        assert!(json.len() <= MAX_RECORD);
        let before = Record::from_json(&id, &json).unwrap().before.unwrap();
        assert_eq!((before.secrets.len(), Some(before.digest)), (0, record.before.map(|before| before.digest)));
    }

    #[test]
    fn a_record_of_another_version_is_refused_in_one_clear_line() {
        let (id, record) = record(1);
        let json = String::from_utf8(record.to_json().unwrap()).unwrap().replace("\"version\":1,", "\"version\":9,");
        let error = Record::from_json(&id, json.as_bytes()).unwrap_err();
        assert!(error.message().contains("version 9") && error.message().contains("reads 1"), "{error}");
        assert!(Record::from_json(&id, b"{}").is_err() && Record::from_json(&id, b"").is_err());
    }
}
