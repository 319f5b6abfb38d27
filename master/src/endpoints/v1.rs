//! JSON of the v1 answers. Mesos writes some of them by hand, and there empty lists are
//! shown; everywhere else they are left out.

use super::json::Writer;
use tepui_master_machine::model::wire::master::{Event, Response, event, response};
use tepui_server::proto::json;

/// The JSON of an answer.
pub(crate) fn response(answer: &Response) -> String {
    let mut writer = Writer::new();
    let name = answer.r#type().as_str_name();
    let mut one = |field: &str, content: &dyn Fn(&mut Writer)| {
        writer.object(|it| {
            it.string_field("type", name);
            content(it.key(field));
        });
        std::mem::take(&mut writer).finish()
    };
    if let Some(it) = &answer.get_state {
        one("get_state", &|writer| state(writer, it))
    } else if let Some(it) = &answer.get_tasks {
        one("get_tasks", &|writer| tasks(writer, it))
    } else if let Some(it) = &answer.get_executors {
        one("get_executors", &|writer| executors(writer, it))
    } else if let Some(it) = &answer.get_frameworks {
        one("get_frameworks", &|writer| frameworks(writer, it))
    } else if let Some(it) = &answer.get_agents {
        one("get_agents", &|writer| agents(writer, it))
    } else {
        json::encode(answer)
    }
}

/// The JSON of an event.
pub(crate) fn event(event: &Event) -> String {
    let Some(event::Subscribed {
        get_state: Some(get_state),
        heartbeat_interval_seconds,
    }) = &event.subscribed
    else {
        return json::encode(event);
    };
    let mut writer = Writer::new();
    writer.object(|it| {
        it.string_field("type", event.r#type().as_str_name());
        it.object_field("subscribed", |it| {
            state(it.key("get_state"), get_state);
            if let Some(seconds) = heartbeat_interval_seconds {
                it.double_field("heartbeat_interval_seconds", *seconds);
            }
        });
    });
    writer.finish()
}

fn list<M: prost::Message + prost::Name>(it: &mut Writer, name: &str, messages: &[M]) {
    it.array_field(name, |it| {
        for message in messages {
            it.raw(&json::encode(message));
        }
    });
}

fn state(writer: &mut Writer, state: &response::GetState) {
    writer.object(|it| {
        if let Some(found) = &state.get_tasks {
            tasks(it.key("get_tasks"), found);
        }
        if let Some(found) = &state.get_executors {
            executors(it.key("get_executors"), found);
        }
        if let Some(found) = &state.get_frameworks {
            frameworks(it.key("get_frameworks"), found);
        }
        if let Some(found) = &state.get_agents {
            agents(it.key("get_agents"), found);
        }
    });
}

fn tasks(writer: &mut Writer, found: &response::GetTasks) {
    writer.object(|it| {
        list(it, "tasks", &found.tasks);
        list(it, "unreachable_tasks", &found.unreachable_tasks);
        list(it, "completed_tasks", &found.completed_tasks);
    });
}

fn executors(writer: &mut Writer, found: &response::GetExecutors) {
    writer.object(|it| list(it, "executors", &found.executors));
}

fn frameworks(writer: &mut Writer, found: &response::GetFrameworks) {
    writer.object(|it| {
        list(it, "frameworks", &found.frameworks);
        list(it, "completed_frameworks", &found.completed_frameworks);
    });
}

fn agents(writer: &mut Writer, found: &response::GetAgents) {
    writer.object(|it| {
        list(it, "agents", &found.agents);
        list(it, "recovered_agents", &found.recovered_agents);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lists_are_shown_where_mesos_shows_them() {
        let mut answer = Response::default();
        answer.set_type(response::Type::GetAgents);
        answer.get_agents = Some(response::GetAgents::default());
        assert_eq!(
            self::response(&answer),
            r#"{"type":"GET_AGENTS","get_agents":{"agents":[],"recovered_agents":[]}}"#
        );
        let mut answer = Response::default();
        answer.set_type(response::Type::GetRoles);
        answer.get_roles = Some(response::GetRoles::default());
        assert_eq!(
            self::response(&answer),
            r#"{"type":"GET_ROLES","get_roles":{}}"#
        );
    }
}
