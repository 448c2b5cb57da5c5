{#  Two ways of looking, since each is blind to what the other sees: the best single change of the weeks (Hinkley 1970,
    doi:10.1093/biomet/57.1.1) finds a step and when it came, fixed windows find what goes slowly. Both over the level and
    over figures of the day's shape.

    All is made of weeks, counted back from the last day: seven times fewer rows, no weekday in the way, and less of the
    memory that one day has of the day before. Sums are of whole numbers (exact_sum), the same in any order. #}

{%- set look_back_days = var('suspicion_look_back_days') | int %}
{%- set recent_weeks = 4 %}
{%- set least_days = 4 %}
{%- set least_before = 2 %}
{%- set least_weeks = 4 %}
{%- set blocks = range(1, 9) %}
{%- set highest_level = 3 %}
{%- set least_zero_hours = 2 %}
{%- set highest_tap = 10000 %}
{%- set least_completeness = 0.8 %}
{%- set signals = ['level', 'peak_share', 'hourly_change', 'hourly_variation'] %}
{%- set levels = ref('int_meter_levels') %}
{%- set as_of_date = '(select last_day.as_of_date from last_day)' %}

{{ config(
    unique_key=['meter_id'],
    indexes=[{'columns': ['meter_id']}],
    pre_hook="{{ replace_all(['meter_id']) }}"
) }}

with

last_day as (

    select max(reading_date) as as_of_date
    from {{ levels }}

),

registered as (

    select *
    from {{ ref('int_registered_meters') }}

),

outages as (

    select *
    from {{ ref('stg_outages') }}

),

nodes as (

    select *
    from {{ ref('stg_network_nodes') }}

),

recent_days as (

    select
        meter_id,
        reading_date,
        daily_consumption_kwh
    from {{ ref('int_meter_days') }}
    where reading_date > {{ shift_period('day', as_of_date, -1 * look_back_days) }}

),

-- which two of the eight blocks of the day each group of peers uses most in, and least
profiles as (

    select
        peer_group,
        {% for block in blocks %}
            {{ exact_mean('share_' ~ block) }} as share_{{ block }},
        {% endfor %}
        count(*) as day_count
    from {{ levels }}
    group by 1

),

peaks as (

    select
        {% for block in blocks %}
            share_{{ block }},
            {% set above, below = profile_rank('share_', block, '>'), profile_rank('share_', block, '<') %}
            case when {{ above }} < 2 then 1 else 0 end as is_peak_{{ block }},
            case when {{ below }} < 2 then 1 else 0 end as is_quiet_{{ block }},
        {% endfor %}
        peer_group
    from profiles

),

days as (

    select
        *,
        cast(floor(({{ as_of_date }} - reading_date) / 7.0) as integer) as weeks_ago,
        case
            when supplied_day_kwh > {{ highest_level }} * mean_kwh * peer_index then {{ highest_level }}
            else supplied_day_kwh / nullif(mean_kwh * peer_index, 0)
        end as level
    from {{ levels }}

),

-- days on which nobody is there say nothing of how a meter registers, and are not compared
weeks as (

    select
        meter_id,
        weeks_ago,
        max(peer_group) as peer_group,
        max(mean_kwh) as mean_kwh,
        min(reading_date) as first_date,
        max(reading_date) as last_date,
        count(*) as day_count,
        {{ exact_mean('level') }} as level,
        {{ exact_mean('level * level') }} as level_square,
        {{ exact_mean('supplied_day_kwh') }} as supplied_day_kwh,
        {{ exact_mean('peer_index') }} as peer_index,
        {% for block in blocks %}
            {{ exact_mean('share_' ~ block) }} as share_{{ block }},
        {% endfor %}
        {{ exact_mean('share_square') }} as share_square,
        {{ exact_mean('hourly_change') }} as hourly_change,
        {{ exact_mean('hourly_variation') }} as hourly_variation,
        {{ exact_mean('load_factor') }} as load_factor,
        {{ exact_mean('base_power_kw') }} as base_power_kw,
        max(peak_power_kw) as peak_power_kw,
        sum(hour_count) as hour_count,
        sum(zero_hours) as zero_hours,
        sum(repeated_hours) as repeated_hours,
        {{ exact_sum('repeated_hours * supplied_day_kwh') }} as repeated_hours_kwh,
        sum(case when zero_hours >= {{ least_zero_hours }} then 1 else 0 end) as zero_days
    from days
    where not is_vacant
    group by 1, 2

),

shaped_weeks as (

    select
        weeks.*,
        {% for name in ['peak', 'quiet'] %}
            {% for block in blocks %}
                {{ '+ ' if not loop.first }}weeks.share_{{ block }} * peaks.is_{{ name }}_{{ block }}
            {% endfor %}
                as {{ name }}_share,
        {% endfor %}
        {{ profile_distance('weeks.share_', 'peaks.share_') }} as peer_distance
    from weeks
    inner join peaks on weeks.peer_group = peaks.peer_group
    where weeks.day_count >= {{ least_days }}

),

summed as (

    select
        *,
        {% for signal in signals %}
            count({{ signal }}) over until_now as {{ signal }}_n,
            sum({{ signal }}) over until_now as {{ signal }}_sum,
            count({{ signal }}) over all_weeks as {{ signal }}_all_n,
            sum({{ signal }}) over all_weeks as {{ signal }}_all_sum,
            sum({{ signal }} * {{ signal }}) over all_weeks as {{ signal }}_all_squares,
        {% endfor %}
        min(weeks_ago) over all_weeks as newest_week,
        weeks_ago < {{ recent_weeks }} as is_recent
    from shaped_weeks
    window
        until_now as (
            partition by meter_id
            order by weeks_ago desc
            rows between unbounded preceding and current row
        ),
        all_weeks as (
            partition by meter_id
            order by weeks_ago desc
            rows between unbounded preceding and unbounded following
        )

),

-- how strange the difference is, in standard errors, if the series changed after this week
split as (

    select
        *,
        {% for signal in signals %}
            case
                when
                    {{ signal }}_n >= {{ least_before }}
                    and {{ signal }}_all_n > {{ signal }}_n
                    and {{ signal }}_all_n >= {{ least_weeks }}
                    then {{ difference_t(signal) }}
            end as {{ signal }}_t,
        {% endfor %}
        {{ least_weeks }} as least_weeks
    from summed

),

best as (

    select
        *,
        {% for signal in signals[1:] %}
            max(abs({{ signal }}_t)) over all_weeks as {{ signal }}_best_t,
        {% endfor %}
        min(level_t) over all_weeks as drop_t,
        max(level_t) over all_weeks as rise_t
    from split
    window all_weeks as (
        partition by meter_id
        order by weeks_ago desc
        rows between unbounded preceding and unbounded following
    )

),

-- the last week before each change, as weeks ago
changes as (

    select
        meter_id,
        {% for signal in signals[1:] %}
            {% set is_best = 'abs(' ~ signal ~ '_t) = ' ~ signal ~ '_best_t' %}
            max(case when {{ is_best }} then weeks_ago end) as {{ signal }}_week,
            max(case when {{ is_best }} then {{ signal }}_t end) as {{ signal }}_t,
        {% endfor %}
        max(drop_t) as drop_t,
        max(rise_t) as rise_t,
        max(case when level_t = drop_t then weeks_ago end) as drop_week
    from best
    group by 1

),

-- energy that the transformer delivered and nobody's meter, nor its losses, account for; kWh a day
node_weeks as (

    select
        node_id,
        cast(floor(({{ as_of_date }} - reading_date) / 7.0) as integer) as weeks_ago,
        {{ exact_mean('unexplained_kwh') }} as unexplained_kwh,
        {{ exact_mean('energy_in_kwh') }} as energy_in_kwh
    from {{ ref('int_energy_balance') }}
    where
        node_type = 'transformer'
        and completeness >= {{ least_completeness }}
        and reading_date <= {{ as_of_date }}
        and reading_date > {{ shift_period('day', as_of_date, -1 * look_back_days) }}
    group by 1, 2

),

-- profiles are compared before and after the strongest change of shape
sides as (

    select
        summed.*,
        node_weeks.energy_in_kwh,
        node_weeks.unexplained_kwh,
        -- in mean days of the meter: sums stay small, and a correlation knows no unit
        case
            when abs(node_weeks.unexplained_kwh) <= {{ highest_tap }} * summed.mean_kwh
                then node_weeks.unexplained_kwh / summed.mean_kwh
        end as unexplained_days,
        summed.peer_index - summed.supplied_day_kwh / nullif(summed.mean_kwh, 0) as deficit_days,
        changes.drop_t,
        changes.rise_t,
        changes.drop_week,
        {% for signal in signals[1:] %}
            changes.{{ signal }}_t,
        {% endfor %}
        summed.weeks_ago < changes.drop_week as is_after_drop,
        summed.weeks_ago >= changes.drop_week as is_before_drop,
        case
            when abs(changes.peak_share_t) >= abs(changes.hourly_change_t)
                and abs(changes.peak_share_t) >= abs(changes.hourly_variation_t)
                then changes.peak_share_week
            when abs(changes.hourly_change_t) >= abs(changes.hourly_variation_t) then changes.hourly_change_week
            else changes.hourly_variation_week
        end as shape_week
    from summed
    inner join changes on summed.meter_id = changes.meter_id
    left join registered as meters on summed.meter_id = meters.meter_id
    left join node_weeks on meters.transformer_id = node_weeks.node_id and summed.weeks_ago = node_weeks.weeks_ago

),

figures as (

    select
        meter_id,
        max(peer_group) as peer_group,
        max(mean_kwh) as mean_kwh,
        ---------- days
        max(last_date) as last_date,
        cast(sum(day_count) as bigint) as day_count,
        count(*) as week_count,
        count(case when is_recent then 1 end) as recent_week_count,
        ---------- changes
        max(drop_t) as drop_t,
        max(rise_t) as rise_t,
        {% for signal in signals[1:] %}
            max({{ signal }}_t) as {{ signal }}_t,
        {% endfor %}
        min(case when is_after_drop then first_date end) as drop_date,
        min(case when weeks_ago < shape_week then first_date end) as shape_date,
        count(case when is_after_drop then 1 end) as weeks_since_drop,
        ---------- level
        {% for value in ['level', 'supplied_day_kwh', 'peer_index', 'base_power_kw', 'hourly_variation'] %}
            {{ exact_mean_where(value, 'is_before_drop') }} as {{ value }}_before_drop,
            {{ exact_mean_where(value, 'is_after_drop') }} as {{ value }}_since_drop,
            {{ exact_mean_where(value, 'not is_recent') }} as {{ value }}_past,
            {{ exact_mean_where(value, 'is_recent') }} as {{ value }}_recent,
        {% endfor %}
        max(case when weeks_ago = newest_week then level end) as level_last_week,
        max(case when is_after_drop then level end) as best_week_since_drop,
        min(case when is_before_drop then level end) as worst_week_before_drop,
        {{ exact_mean_where('level * level', 'not is_recent') }} as level_square_past,
        {{ exact_mean_where('level_square - level * level', 'not is_recent') }} as day_variance_past,
        {{ exact_mean_where('level_square - level * level', 'is_recent') }} as day_variance_recent,
        {{ exact_mean('level') }} as level_mean,
        {{ exact_mean('level * level') }} as level_square_mean,
        {{ exact_mean('weeks_ago') }} as weeks_mean,
        {{ exact_mean('1e0 * weeks_ago * weeks_ago') }} as weeks_square_mean,
        {{ exact_mean('weeks_ago * level') }} as weeks_level_mean,
        ---------- shape
        {% for block in blocks %}
            {{ exact_mean_where('share_' ~ block, 'weeks_ago >= shape_week') }} as before_{{ block }},
            {{ exact_mean_where('share_' ~ block, 'weeks_ago < shape_week') }} as after_{{ block }},
            {{ exact_mean_where('share_' ~ block, 'not is_recent') }} as past_{{ block }},
            {{ exact_mean_where('share_' ~ block, 'is_recent') }} as recent_{{ block }},
        {% endfor %}
        {% for days, condition in [('past', 'not is_recent'), ('recent', 'is_recent')] %}
            {{ exact_mean_where('share_square', condition) }} as share_square_{{ days }},
            {{ exact_mean_where('peer_distance', condition) }} as peer_distance_{{ days }},
            {% for figure in ['peak_share', 'quiet_share', 'hourly_change', 'load_factor'] %}
                {{ exact_mean_where(figure, condition) }} as {{ figure }}_{{ days }},
            {% endfor %}
            {% for figure in ['zero_hours', 'repeated_hours'] %}
                {{ hourly_share_where(figure, condition) }} as {{ figure }}_{{ days }},
            {% endfor %}
            {{ as_double('sum(case when ' ~ condition ~ ' then zero_days end)') }}
            / nullif(sum(case when {{ condition }} then day_count end), 0) as zero_days_{{ days }},
        {% endfor %}
        {{ hourly_share_where('zero_hours', 'is_before_drop') }} as zero_hours_before_drop,
        {{ hourly_share_where('zero_hours', 'is_after_drop') }} as zero_hours_since_drop,
        max(case when is_recent then peak_power_kw end) as peak_power_recent_kw,
        -- of a home that stands empty for some of the time, what is used while hours are all alike
        {{ exact_sum('case when is_recent then repeated_hours_kwh end') }}
        / nullif(sum(case when is_recent then repeated_hours end), 0) as repeated_day_kwh_recent,
        ---------- transformer
        {{ exact_mean_where('unexplained_kwh', 'is_recent') }} as unexplained_kwh_recent,
        {{ exact_mean_where('energy_in_kwh', 'is_recent') }} as energy_in_kwh_recent,
        {% for side in ['before', 'after'] %}
            count(case when is_{{ side }}_drop then unexplained_days end) as unexplained_n_{{ side }},
            {{ exact_mean_where('unexplained_days', 'is_' ~ side ~ '_drop') }} as unexplained_days_{{ side }},
            {{ exact_mean_where('unexplained_days * unexplained_days', 'is_' ~ side ~ '_drop') }}
                as unexplained_square_{{ side }},
        {% endfor %}
        {{ exact_mean('unexplained_days') }} as unexplained_days,
        {{ exact_mean('unexplained_days * unexplained_days') }} as unexplained_square,
        {{ exact_mean_where('deficit_days', 'unexplained_days is not null') }} as deficit_days,
        {{ exact_mean_where('deficit_days * deficit_days', 'unexplained_days is not null') }} as deficit_square,
        {{ exact_mean('unexplained_days * deficit_days') }} as unexplained_deficit
    from sides
    group by 1

),

spreads as (

    select
        *,
        {% for side in ['before', 'after'] %}
            greatest(unexplained_square_{{ side }} - unexplained_days_{{ side }} * unexplained_days_{{ side }}, 0)
                as unexplained_variance_{{ side }},
        {% endfor %}
        greatest(unexplained_square - unexplained_days * unexplained_days, 1e-6) as unexplained_variance,
        greatest(deficit_square - deficit_days * deficit_days, 1e-6) as deficit_variance
    from figures

),

-- all meters of the time, those too that have not one whole week
known as (

    select
        recent_days.meter_id,
        max(recent_days.reading_date) as last_date
    from recent_days
    cross join last_day
    where recent_days.reading_date <= last_day.as_of_date
    group by 1

),

supplying_nodes as (

    select
        meter_id,
        transformer_id as node_id
    from registered

    union all

    select
        meters.meter_id,
        nodes.parent_id as node_id
    from registered as meters
    inner join nodes on meters.transformer_id = nodes.node_id

),

-- hours since the drop in which the transformer or its feeder was out
outage_hours as (

    select
        figures.meter_id,
        sum(
            {{ epoch_seconds('least(coalesce(outages.end_time, figures.last_date + 1), figures.last_date + 1)') }}
            - {{ epoch_seconds('greatest(outages.start_time, figures.drop_date)') }}
        ) / 3600.0 as outage_hours
    from figures
    inner join supplying_nodes on figures.meter_id = supplying_nodes.meter_id
    inner join outages
        on
            supplying_nodes.node_id = outages.node_id
            and figures.last_date + 1 > outages.start_time
            and figures.drop_date < coalesce(outages.end_time, figures.last_date + 1)
    group by 1

),

vacancies as (

    select
        meter_id,
        {{ as_double('sum(case when is_vacant then 1 else 0 end)') }} / count(*) as vacant_share_recent
    from days
    where weeks_ago < {{ recent_weeks }}
    group by 1

),

-- what a meter registers after it was taken out, with no other in its place
disconnected as (

    select
        meters.meter_id,
        {{ exact_sum('recent_days.daily_consumption_kwh') }} as kwh_after_disconnection
    from registered as meters
    inner join recent_days on meters.meter_id = recent_days.meter_id and meters.valid_to <= recent_days.reading_date
    where meters.replaced_by is null
    group by 1

)

select
    known.meter_id,
    last_day.as_of_date,
    figures.peer_group,
    meters.service_point_id,
    meters.transformer_id,
    meters.customer_class,
    meters.contracted_power_kw,
    meters.tariff_per_kwh,
    meters.currency,
    meters.is_prepaid,
    meters.valid_from,
    meters.valid_to,
    meters.replaced_by,
    meters.replacement_date,
    ---------- data
    known.last_date,
    coalesce(figures.day_count, 0) as day_count,
    coalesce(figures.week_count, 0) as week_count,
    coalesce(figures.recent_week_count, 0) as recent_week_count,
    ---------- level
    figures.mean_kwh,
    figures.drop_date,
    figures.weeks_since_drop,
    -figures.drop_t as drop_t,
    figures.rise_t,
    1 - figures.level_since_drop / nullif(figures.level_before_drop, 0) as drop_share,
    figures.supplied_day_kwh_before_drop,
    figures.supplied_day_kwh_since_drop,
    figures.peer_index_since_drop / nullif(figures.peer_index_before_drop, 0) - 1 as peer_change_since_drop,
    1 - figures.level_last_week / nullif(figures.level_before_drop, 0) as last_week_drop_share,
    1 - figures.best_week_since_drop / nullif(figures.level_before_drop, 0) as least_drop_share,
    1 - figures.worst_week_before_drop / nullif(figures.level_before_drop, 0) as earlier_drop_share,
    1 - figures.level_recent / nullif(figures.level_past, 0) as recent_drop_share,
    (figures.level_past - figures.level_recent)
    / sqrt(greatest(figures.level_square_past - figures.level_past * figures.level_past, 4e-4)) as recent_drop_z,
    figures.supplied_day_kwh_past,
    figures.supplied_day_kwh_recent,
    figures.peer_index_recent / nullif(figures.peer_index_past, 0) - 1 as peer_change_recent,
    -- weeks_ago counts backwards: a decline has a positive slope over it; as a share of the mean level in 30 days
    30 / 7.0 * (figures.weeks_level_mean - figures.weeks_mean * figures.level_mean)
    / nullif((figures.weeks_square_mean - figures.weeks_mean * figures.weeks_mean) * figures.level_mean, 0)
        as decline_share_30d,
    -- how straight it is, -1 to 1
    (figures.weeks_level_mean - figures.weeks_mean * figures.level_mean)
    / nullif(
        sqrt(
            (figures.weeks_square_mean - figures.weeks_mean * figures.weeks_mean)
            * greatest(figures.level_square_mean - figures.level_mean * figures.level_mean, 1e-6)
        ),
        0
    ) as decline_correlation,
    sqrt(greatest(figures.day_variance_past, 0)) / nullif(figures.level_past, 0) as day_variation_past,
    sqrt(greatest(figures.day_variance_recent, 0)) / nullif(figures.level_recent, 0) as day_variation_recent,
    ---------- shape
    figures.shape_date,
    figures.peak_share_t,
    figures.hourly_change_t,
    figures.hourly_variation_t,
    {{ profile_distance('figures.before_', 'figures.after_') }} as profile_distance,
    {{ profile_distance('figures.past_', 'figures.recent_') }} as recent_profile_distance,
    {{ profile_correlation('figures.before_', 'figures.after_') }} as profile_correlation,
    {{ profile_correlation('figures.before_', 'figures.after_', reverse=true) }} as reversed_correlation,
    {% for days in ['past', 'recent'] %}
        figures.peer_distance_{{ days }},
        -- how much the days' profiles differ from each other
        sqrt(
            greatest(
                figures.share_square_{{ days }}
                {% for block in blocks %}
                    - figures.{{ days }}_{{ block }} * figures.{{ days }}_{{ block }}
                {% endfor %},
                0
            )
        ) as profile_spread_{{ days }},
        {% for figure in ['peak_share', 'quiet_share', 'hourly_change', 'hourly_variation', 'load_factor'] %}
            figures.{{ figure }}_{{ days }},
        {% endfor %}
        figures.zero_hours_{{ days }} as zero_share_{{ days }},
        figures.zero_days_{{ days }} as zero_day_share_{{ days }},
        figures.repeated_hours_{{ days }} as repeated_share_{{ days }},
    {% endfor %}
    figures.hourly_variation_before_drop,
    figures.hourly_variation_since_drop,
    figures.zero_hours_before_drop as zero_share_before_drop,
    figures.zero_hours_since_drop as zero_share_since_drop,
    figures.base_power_kw_before_drop as base_power_before_drop_kw,
    figures.base_power_kw_since_drop as base_power_since_drop_kw,
    figures.base_power_kw_past as base_power_past_kw,
    figures.peak_power_recent_kw,
    figures.repeated_day_kwh_recent,
    vacancies.vacant_share_recent,
    disconnected.kwh_after_disconnection,
    {{ as_double('outage_hours.outage_hours') }} as outage_hours_since_drop,
    ---------- transformer
    figures.unexplained_kwh_recent / nullif(figures.energy_in_kwh_recent, 0) as transformer_unexplained_share,
    figures.mean_kwh * (figures.unexplained_days_after - figures.unexplained_days_before) as unexplained_rise_kwh,
    case
        when
            figures.unexplained_n_before >= {{ least_before }}
            and figures.unexplained_n_after >= 1
            and figures.unexplained_n_before + figures.unexplained_n_after >= {{ least_weeks }}
            then (figures.unexplained_days_after - figures.unexplained_days_before)
                / sqrt(
                    (
                        1e-6 + (
                            figures.unexplained_n_before * figures.unexplained_variance_before
                            + figures.unexplained_n_after * figures.unexplained_variance_after
                        ) / (figures.unexplained_n_before + figures.unexplained_n_after - 2)
                    ) * (1e0 / figures.unexplained_n_before + 1e0 / figures.unexplained_n_after)
                )
    end as unexplained_rise_t,
    (figures.unexplained_deficit - figures.unexplained_days * figures.deficit_days)
    / sqrt(figures.unexplained_variance * figures.deficit_variance) as unexplained_correlation
from known
cross join last_day
left join spreads as figures on known.meter_id = figures.meter_id
left join registered as meters on known.meter_id = meters.meter_id
left join vacancies on known.meter_id = vacancies.meter_id
left join disconnected on known.meter_id = disconnected.meter_id
left join outage_hours on known.meter_id = outage_hours.meter_id
