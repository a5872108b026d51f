CREATE ROLE x;
\! id
