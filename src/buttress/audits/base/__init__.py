"""What audits share: subject, finding, statistics, evaluation."""
