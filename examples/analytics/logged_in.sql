-- Who is logged in where, and since when?
--
-- Guests without a connected agent are left out: of them it is only known who was.
SELECT user_name, cluster, namespace, name, login_time, users_now.observed_at AS told_at
FROM users_now
SEMI JOIN (SELECT cluster, namespace, name FROM guests WHERE connected AND phase = 'Running')
    USING (cluster, namespace, name)
ORDER BY user_name, login_time, namespace, name;
