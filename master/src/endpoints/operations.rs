//! Offer operations: GET_OPERATIONS.

use crate::view::View;
use prost::Message;
use tepui_master_machine::model::{log, wire};

/// GET_OPERATIONS.
pub(crate) fn get_operations(view: &View) -> wire::master::response::GetOperations {
    wire::master::response::GetOperations {
        operations: view
            .state()
            .operations()
            .map(|row| operation(row))
            .collect(),
    }
}

fn operation(row: &log::OfferOperation) -> wire::Operation {
    let info = wire::offer::Operation::decode(row.info_payload.clone()).unwrap_or_default();
    let mut latest_status =
        wire::OperationStatus::decode(row.status_payload.clone()).unwrap_or_default();
    if row.status_payload.is_empty() {
        latest_status.state = row.state;
    }
    wire::Operation {
        framework_id: (!row.framework_id.is_empty()).then(|| wire::FrameworkId {
            value: row.framework_id.clone(),
        }),
        agent_id: Some(wire::AgentId {
            value: row.agent_id.clone(),
        }),
        info,
        statuses: vec![latest_status.clone()],
        latest_status,
        uuid: wire::Uuid {
            value: unhex(&row.uuid).into(),
        },
    }
}

/// The bytes of a hexadecimal text, dashes left out.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|it| u8::try_from(it.to_digit(16)?).ok())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
