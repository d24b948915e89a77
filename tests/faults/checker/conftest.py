"""The story that each test here spoils."""

from tests.faults.checker.story import story as story
