"""Services: what is wanted, what is seen, and the planner between the two. Pure: nothing here looks or acts."""

from app.domain.services.actions import Action, CancelAll, Create, GiveUp, Good, Plan, RollBack, Stop
from app.domain.services.desired import Desired, Restart, Update
from app.domain.services.members import Observed
from app.domain.services.planning import plan
from app.domain.services.words import Overall, Status, overall_status, replica_word, service_status

__all__ = [
    "Action",
    "CancelAll",
    "Create",
    "Desired",
    "GiveUp",
    "Good",
    "Observed",
    "Overall",
    "Plan",
    "Restart",
    "RollBack",
    "Status",
    "Stop",
    "Update",
    "overall_status",
    "plan",
    "replica_word",
    "service_status",
]
