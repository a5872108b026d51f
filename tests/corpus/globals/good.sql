--
-- PostgreSQL database cluster dump
--
\restrict aBcD
SET default_transaction_read_only = off;
CREATE ROLE "o'hara ""the; great"" -- $1";
ALTER ROLE "o'hara ""the; great"" -- $1" WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:x$y:z' VALID UNTIL '2030-01-01';
COMMENT ON ROLE app IS E'two\nlines;\n\'quoted\'';
CREATE TABLESPACE fast OWNER postgres LOCATION '/fast';
/* a /* nested; */ comment */ DO $t$ BEGIN PERFORM '$$;'; END $t$;
\unrestrict aBcD
