"""Keep the durable record of a search: ask for trials, record their results, measure progress against the budget."""
