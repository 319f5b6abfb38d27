//! EXPLAIN: why a framework or a role is offered what it is offered.

use tepui_allocator::{AgentGroup, Explained, Explanation, Reason};
use tepui_model::id::{AgentId, FrameworkId};
use tepui_model::operator::{self, explanation};
use tepui_model::role::Role;
use tepui_model::time::Instant;

use crate::input::RequestId;
use crate::machine::Machine;
use crate::operator::Refused;
use crate::output::{Destination, Message, Needs, Outgoing, Status};

/// Agents times clients looked at: some ten milliseconds.
const WORK: usize = 30_000;

impl Machine {
    /// Answers for a framework, a role, or a framework in a role. What is refused is the
    /// framework, whose field the door names as its clients know it, or that there is neither.
    pub(crate) fn explain(
        &mut self,
        reply: RequestId,
        framework_id: Option<&FrameworkId>,
        role: Option<&Role>,
    ) {
        match self.explanation(framework_id, role) {
            Ok(answer) => self.out.send.push(Outgoing {
                to: Destination::Reply(reply),
                message: Message::Explanation(Box::new(answer)),
                needs: Needs::Committed,
            }),
            Err(it) => self.answer_needing(reply, it.status, it.message, Needs::Leadership),
        }
    }

    fn explanation(
        &mut self,
        framework_id: Option<&FrameworkId>,
        role: Option<&Role>,
    ) -> Result<operator::Explanation, Refused> {
        if framework_id.is_none() && role.is_none() {
            return Err(Refused::new(
                Status::BadRequest,
                "expected a framework, a role, or both",
            ));
        }
        if let Some(id) = framework_id
            && !self.is_live(id)
        {
            let message = format!("no framework '{id}' is active");
            return Err(Refused::new(Status::NotFound, message));
        }
        let answer = self.allocator.explain(self.now, framework_id, role, WORK);
        Ok(to_wire(&answer, self.now))
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn to_wire(answer: &Explanation, now: Instant) -> operator::Explanation {
    operator::Explanation {
        agents: count(answer.agents),
        agents_looked_at: count(answer.looked_at),
        more_clients: count(answer.more_clients),
        complete: answer.is_complete,
        clients: answer.clients.iter().map(|it| client(it, now)).collect(),
    }
}

fn client(it: &Explained, now: Instant) -> explanation::Client {
    let gets = it.gets.iter().map(|it| explanation::Gets {
        agent_id: AgentId::to_wire(&it.agent),
        resources: it.resources.unallocate().to_wire(),
    });
    explanation::Client {
        framework_id: it.framework.to_wire(),
        role: it.role.as_str().to_owned(),
        place: it.place.map(count),
        dormant: it.dormant,
        silent: it.silent.map(str::to_owned),
        gets: gets.collect(),
        reasons: it.groups.iter().map(|it| reason(it, now)).collect(),
    }
}

fn reason(it: &AgentGroup, now: Instant) -> explanation::Reason {
    let seconds = |at: Instant| at.saturating_since(now).as_secs_f64();
    let mut found = explanation::Reason {
        reason: it.reason.name().to_owned(),
        message: it.reason.to_string(),
        agents: count(it.count),
        example: it.example.to_wire(),
        first_ends_in_seconds: it.until.map(|(first, _)| seconds(first)),
        last_ends_in_seconds: it.until.map(|(_, last)| seconds(last)),
        ..explanation::Reason::default()
    };
    match &it.reason {
        Reason::Limit { role, .. } => found.limit_of_role = Some(role.as_str().to_owned()),
        Reason::Headroom { lacks, .. } => {
            let lacks = lacks.iter().map(|(role, lacks)| explanation::Lack {
                role: role.as_str().to_owned(),
                amount: lacks.as_f64(),
            });
            found.kept_for = lacks.collect();
        }
        Reason::Used { role, framework } => {
            found.by_role = Some(role.as_str().to_owned());
            found.by_framework_id = Some(framework.to_wire());
        }
        _ => {}
    }
    found
}
