"""What tests share: models, browsers, pages, hostile texts."""
