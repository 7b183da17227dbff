"""From a trained run to findings: plan, views, knowledge, truths, cells."""
